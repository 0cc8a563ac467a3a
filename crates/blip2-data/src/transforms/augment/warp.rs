//! OpenCV's `warpAffine` of 8-bit images: bilinear, in fixed point, to the bit of version 4.10 and
//! before (LAVIS pins 4.5).

/// What comes in from outside.
const FILL: i64 = 128;

/// Fraction bits of coordinates.
const COORDINATE: u32 = 10;

/// Fraction bits of the position between two pixels.
const BETWEEN: u32 = 5;

/// A map from positions of the source to positions of the result, `[[a, b, x], [c, d, y]]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine([[f64; 3]; 2]);

impl Affine {
    /// In single precision, which the reference uses for shears and translations.
    pub fn single(matrix: [[f64; 3]; 2]) -> Self {
        Self(matrix.map(|row| row.map(|value| f64::from(value as f32))))
    }

    /// Around the centre, in degrees, against the clock.
    pub fn rotation(degrees: f64, width: usize, height: usize) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
        Self([
            [cos, sin, (1.0 - cos) * x - sin * y],
            [-sin, cos, sin * x + (1.0 - cos) * y],
        ])
    }

    /// From positions of the result to positions of the source.
    fn inverse(self) -> Self {
        let [[a, b, x], [c, d, y]] = self.0;
        let determinant = a * d - b * c;
        let scale = if determinant == 0.0 {
            0.0
        } else {
            1.0 / determinant
        };
        let (a, b, c, d) = (d * scale, -b * scale, -c * scale, a * scale);
        Self([[a, b, -a * x - b * y], [c, d, -c * x - d * y]])
    }
}

/// Moves `pixels` (`[height, width, 3]`) as `affine` says; the size stays.
pub(super) fn warp(pixels: &[u8], width: usize, affine: Affine) -> Vec<u8> {
    let stride = 3 * width;
    let (columns, rows) = (width as i64, (pixels.len() / stride) as i64);
    let Affine([[a, b, x0], [c, d, y0]]) = affine.inverse();
    let fixed = |value: f64| (value * f64::from(1 << COORDINATE)).round_ties_even() as i64;
    let half = 1 << (COORDINATE - BETWEEN - 1);
    let mut result = Vec::with_capacity(pixels.len());
    for row in 0..rows {
        let (x, y) = (fixed(b * row as f64 + x0), fixed(d * row as f64 + y0));
        for column in 0..columns {
            let x = (x + half + fixed(a * column as f64)) >> (COORDINATE - BETWEEN);
            let y = (y + half + fixed(c * column as f64)) >> (COORDINATE - BETWEEN);
            let (left, top) = (x >> BETWEEN, y >> BETWEEN);
            let (right, down) = (x & ((1 << BETWEEN) - 1), y & ((1 << BETWEEN) - 1));
            let one = 1 << BETWEEN;
            let taps = [
                (left, top, (one - right) * (one - down)),
                (left + 1, top, right * (one - down)),
                (left, top + 1, (one - right) * down),
                (left + 1, top + 1, right * down),
            ];
            let mut sums = [1 << (2 * BETWEEN - 1); 3];
            for (x, y, weight) in taps {
                let inside = (0..columns).contains(&x) && (0..rows).contains(&y);
                let at = if inside {
                    y as usize * stride + 3 * x as usize
                } else {
                    0
                };
                for (channel, sum) in sums.iter_mut().enumerate() {
                    let value = if inside {
                        i64::from(pixels[at + channel])
                    } else {
                        FILL
                    };
                    *sum += weight * value;
                }
            }
            result.extend(sums.map(|sum| (sum >> (2 * BETWEEN)) as u8));
        }
    }
    result
}
