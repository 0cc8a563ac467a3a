//! The ten operations of LAVIS's `blip_image_train` on 8-bit pixels.
//!
//! Reference: `lavis/processors/randaugment.py`, which computes with OpenCV. One thing is not
//! copied: `AutoContrast` there negates the darkest value as an unsigned byte, so a channel without
//! a zero becomes white; here it does what its documentation promises (Pillow's autocontrast).

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::warp::{Affine, warp};

/// The greatest strength.
pub(super) const MAX_LEVEL: f64 = 10.0;

/// How many kinds of operation are drawn from.
pub(super) const KINDS: usize = 10;

/// How far the strongest translation goes, in pixels.
const TRANSLATION: f64 = 10.0;

/// An operation on the pixels of an image. What comes in from outside is grey.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// Leaves the image.
    Identity,
    /// Spreads each channel over 0–255.
    AutoContrast,
    /// Makes the histogram of each channel flat.
    Equalize,
    /// Multiplies by a factor.
    Brightness(f64),
    /// Goes by a factor from the smoothed image to this one; above 1 beyond it.
    Sharpness(f64),
    /// Moves each row by its number times a factor.
    ShearX(f64),
    /// Moves each column by its number times a factor.
    ShearY(f64),
    /// Moves to the right, in pixels.
    TranslateX(f64),
    /// Moves down, in pixels.
    TranslateY(f64),
    /// Turns around the centre, in degrees, against the clock.
    Rotate(f64),
}

impl Operation {
    /// The operation number `kind` (of [`KINDS`]) at `level`, to a random side where it has two.
    pub(super) fn of_kind(kind: usize, level: f64, rng: &mut ChaCha8Rng) -> Self {
        let strength = level / MAX_LEVEL;
        let factor = strength * 1.8 + 0.1;
        let mut sided = |value: f64| if rng.random::<bool>() { value } else { -value };
        match kind {
            0 => Self::Identity,
            1 => Self::AutoContrast,
            2 => Self::Brightness(factor),
            3 => Self::Sharpness(factor),
            4 => Self::Equalize,
            5 => Self::ShearX(sided(strength * 0.3)),
            6 => Self::ShearY(sided(strength * 0.3)),
            7 => Self::TranslateX(sided(strength * TRANSLATION)),
            8 => Self::TranslateY(sided(strength * TRANSLATION)),
            _ => Self::Rotate(sided(strength * 30.0)),
        }
    }

    /// Applies it to `pixels` (`[height, width, 3]`).
    pub fn apply(self, pixels: Vec<u8>, width: usize) -> Vec<u8> {
        let height = pixels.len() / (3 * width);
        match self {
            Self::Identity => pixels,
            Self::AutoContrast => by_channel(pixels, auto_contrast),
            Self::Equalize => by_channel(pixels, equalize),
            Self::Brightness(factor) => {
                let table: Vec<u8> = (0..=255u8)
                    .map(|value| (f32::from(value) * factor as f32) as u8)
                    .collect();
                by_channel(pixels, |_| Some(table.clone()))
            }
            Self::Sharpness(factor) => sharpen(pixels, width, factor as f32),
            Self::ShearX(factor) => warp(
                &pixels,
                width,
                Affine::single([[1.0, factor, 0.0], [0.0, 1.0, 0.0]]),
            ),
            Self::ShearY(factor) => warp(
                &pixels,
                width,
                Affine::single([[1.0, 0.0, 0.0], [factor, 1.0, 0.0]]),
            ),
            Self::TranslateX(offset) => warp(
                &pixels,
                width,
                Affine::single([[1.0, 0.0, -offset], [0.0, 1.0, 0.0]]),
            ),
            Self::TranslateY(offset) => warp(
                &pixels,
                width,
                Affine::single([[1.0, 0.0, 0.0], [0.0, 1.0, -offset]]),
            ),
            Self::Rotate(degrees) => warp(&pixels, width, Affine::rotation(degrees, width, height)),
        }
    }
}

/// Looks each value up in the table that `make` has for its channel's histogram, if any.
fn by_channel(mut pixels: Vec<u8>, make: impl Fn(&[u64; 256]) -> Option<Vec<u8>>) -> Vec<u8> {
    for channel in 0..3 {
        let mut histogram = [0; 256];
        for pixel in pixels.chunks_exact(3) {
            histogram[usize::from(pixel[channel])] += 1;
        }
        if let Some(table) = make(&histogram) {
            for pixel in pixels.chunks_exact_mut(3) {
                pixel[channel] = table[usize::from(pixel[channel])];
            }
        }
    }
    pixels
}

fn auto_contrast(histogram: &[u64; 256]) -> Option<Vec<u8>> {
    let low = histogram.iter().position(|&count| count > 0)?;
    let high = histogram.iter().rposition(|&count| count > 0)?;
    let scale = 255.0 / (high.checked_sub(low).filter(|&range| range > 0)?) as f64;
    let offset = -(low as f64) * scale;
    // A cast cuts to 0–255.
    Some(
        (0..256)
            .map(|value| (f64::from(value) * scale + offset) as u8)
            .collect(),
    )
}

fn equalize(histogram: &[u64; 256]) -> Option<Vec<u8>> {
    let last = *histogram.iter().rfind(|&&count| count > 0)?;
    let step = (histogram.iter().sum::<u64>() - last) / 255;
    if step == 0 {
        return None;
    }
    let mut sum = step / 2;
    let table = histogram.iter().map(|count| {
        let value = (sum / step).min(255) as u8;
        sum += count;
        value
    });
    Some(table.collect())
}

/// The border stays as it is.
fn sharpen(pixels: Vec<u8>, width: usize, factor: f32) -> Vec<u8> {
    let (stride, rows) = (3 * width, pixels.len() / (3 * width));
    let mut result = pixels.clone();
    for row in 1..rows.saturating_sub(1) {
        for column in 3..stride.saturating_sub(3) {
            let at = row * stride + column;
            let around: u32 = [at - stride, at, at + stride]
                .iter()
                .flat_map(|&middle| [middle - 3, middle, middle + 3])
                .map(|index| u32::from(pixels[index]))
                .sum();
            // The centre weighs five times as much as each neighbour; thirteen in all.
            let smooth = (2 * (around + 4 * u32::from(pixels[at])) + 13) / 26;
            let smooth = smooth as f32;
            result[at] = (smooth + factor * (f32::from(pixels[at]) - smooth)) as u8;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_contrast_spreads_each_channel_and_leaves_flat_ones() {
        let pixels = vec![10, 7, 0, 20, 7, 255, 15, 7, 128];
        let expected = [0, 7, 0, 255, 7, 255, 127, 7, 128];
        assert_eq!(Operation::AutoContrast.apply(pixels, 3), expected);
    }

    #[test]
    fn outside_is_grey() {
        let moved = Operation::TranslateX(1.0).apply(vec![1; 9], 3);
        // A positive offset of the reference moves to the left.
        assert_eq!(moved, [1, 1, 1, 1, 1, 1, 128, 128, 128]);
    }

    #[test]
    fn level_five_leaves_brightness_and_sharpness() {
        // LAVIS's own level: 5 / 10 * 1.8 + 0.1 is 1.
        let mut rng = rand::SeedableRng::seed_from_u64(0);
        for kind in [2, 3] {
            let pixels: Vec<u8> = (0..=143).map(|value| value * 97 % 251).collect();
            let operation = Operation::of_kind(kind, 5.0, &mut rng);
            assert_eq!(operation.apply(pixels.clone(), 6), pixels, "{operation:?}");
        }
    }
}
