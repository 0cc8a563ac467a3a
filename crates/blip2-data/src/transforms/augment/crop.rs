//! The random crop: torchvision's `RandomResizedCrop`, which mmpretrain's equals.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// How often a crop that fits is looked for.
const ATTEMPTS: usize = 10;

/// A part of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// Its first column.
    pub left: u32,
    /// Its first row.
    pub top: u32,
    /// Its columns.
    pub width: u32,
    /// Its rows.
    pub height: u32,
}

impl CropBox {
    /// The whole image.
    pub fn whole(width: u32, height: u32) -> Self {
        Self {
            left: 0,
            top: 0,
            width,
            height,
        }
    }

    /// A crop whose share of the area is uniform in `area`, and the logarithm of whose
    /// width / height is uniform in that of `ratio`; after ten that do not fit, the centre.
    pub(super) fn draw(
        (width, height): (u32, u32),
        area: [f64; 2],
        ratio: [f64; 2],
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let pixels = f64::from(width) * f64::from(height);
        for _ in 0..ATTEMPTS {
            let target = pixels * rng.random_range(area[0]..=area[1]);
            let ratio = rng.random_range(ratio[0].ln()..=ratio[1].ln()).exp();
            let columns = (target * ratio).sqrt().round() as u32;
            let rows = (target / ratio).sqrt().round() as u32;
            if (1..=width).contains(&columns) && (1..=height).contains(&rows) {
                return Self {
                    top: rng.random_range(0..=height - rows),
                    left: rng.random_range(0..=width - columns),
                    width: columns,
                    height: rows,
                };
            }
        }
        Self::centre(width, height, ratio)
    }

    /// The largest crop in the middle whose width / height is in `ratio`.
    fn centre(width: u32, height: u32, ratio: [f64; 2]) -> Self {
        let own = f64::from(width) / f64::from(height);
        let (columns, rows) = if own < ratio[0] {
            (width, (f64::from(width) / ratio[0]).round() as u32)
        } else if own > ratio[1] {
            ((f64::from(height) * ratio[1]).round() as u32, height)
        } else {
            (width, height)
        };
        let (columns, rows) = (columns.clamp(1, width.max(1)), rows.clamp(1, height.max(1)));
        Self {
            left: (width - columns) / 2,
            top: (height - rows) / 2,
            width: columns,
            height: rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    const RATIO: [f64; 2] = [0.75, 4.0 / 3.0];

    #[test]
    fn long_images_give_their_centre() {
        // As torchvision: 100 rows allow 133 columns.
        let crop = CropBox::centre(1000, 100, RATIO);
        assert_eq!(
            (crop.left, crop.top, crop.width, crop.height),
            (433, 0, 133, 100)
        );
        let crop = CropBox::centre(99, 1000, RATIO);
        assert_eq!(
            (crop.left, crop.top, crop.width, crop.height),
            (0, 434, 99, 132)
        );
        assert_eq!(CropBox::centre(4, 4, RATIO), CropBox::whole(4, 4));
    }

    proptest! {
        #[test]
        fn crops_lie_inside_and_keep_their_share(
            width in 1u32..2000, height in 1u32..2000, seed: u64
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let crop = CropBox::draw((width, height), [0.5, 1.0], RATIO, &mut rng);
            prop_assert!(crop.width >= 1 && crop.left + crop.width <= width);
            prop_assert!(crop.height >= 1 && crop.top + crop.height <= height);
            let ratio = f64::from(width) / f64::from(height);
            if width > 20 && height > 20 && (0.9..1.1).contains(&ratio) {
                // Half a pixel of rounding at each side.
                let share = f64::from(crop.width * crop.height) / f64::from(width * height);
                prop_assert!(share > 0.45, "{share}");
            }
        }
    }
}
