//! Pillow's resize of 8-bit images, to the bit.
//!
//! Two passes: each output sample is a weighted sum in fixed point, rounded and cut to 8 bits after
//! *each* pass. Where the cut falls decides results next to hard edges, so a resize with the passes
//! swapped, or with coarser weights, differs by up to 28 of 255 there.

mod passes;

use std::borrow::Cow;

use image::RgbImage;

use self::passes::{mix_rows, resize_rows};
use super::Resample;

/// Fraction bits of a weight: 8 bits of sample, and 2 for sums that leave its range, fit beside
/// them into 32.
const PRECISION: u32 = 32 - 8 - 2;

/// The input samples that one output sample is made of.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

impl Resample {
    /// How far the filter reaches to each side, in samples of the coarser side.
    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Bilinear => 1.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        if x >= self.support() {
            return 0.0;
        }
        match self {
            Self::Bilinear => 1.0 - x,
            // Keys' cubic with a = −1/2.
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        }
    }

    /// One window for each of `to` output samples over `from` input samples.
    fn windows(self, from: usize, to: usize) -> Vec<Window> {
        let scale = from as f64 / to as f64;
        // Shrinking widens the filter so that every input sample counts (antialiasing).
        let stretch = scale.max(1.0);
        let reach = self.support() * stretch;
        let window = |index: usize| {
            let center = (index as f64 + 0.5) * scale;
            // A cast cuts negative numbers to 0.
            let start = (center - reach + 0.5) as usize;
            let end = ((center + reach + 0.5) as usize).min(from);
            let weights: Vec<f64> = (start..end)
                .map(|sample| self.weight((sample as f64 - center + 0.5) / stretch))
                .collect();
            let sum: f64 = weights.iter().sum();
            let one = f64::from(1 << PRECISION);
            let weights = weights
                .iter()
                .map(|weight| (weight / sum * one).round() as i32);
            Window {
                start,
                weights: weights.collect(),
            }
        };
        (0..to).map(window).collect()
    }
}

/// Resizes to `width` × `height`, as Pillow's `Image.resize` does. An image without pixels, which
/// Pillow refuses, becomes black.
pub(super) fn resize(image: &RgbImage, width: usize, height: usize, filter: Resample) -> Vec<u8> {
    let (from_width, from_height) = (image.width() as usize, image.height() as usize);
    if from_width == 0 || from_height == 0 {
        return vec![0; 3 * width * height];
    }
    let horizontally = |pixels: Cow<[u8]>| {
        if width == from_width {
            return pixels.into_owned();
        }
        resize_rows(&pixels, from_width, &filter.windows(from_width, width))
    };
    let vertically = |pixels: Cow<[u8]>, width: usize| {
        if height == from_height {
            return pixels.into_owned();
        }
        mix_rows(&pixels, 3 * width, &filter.windows(from_height, height))
    };
    let pixels = Cow::Borrowed(image.as_raw().as_slice());
    if is_vertical_first((from_width, from_height), (width, height)) {
        horizontally(vertically(pixels, from_width).into())
    } else {
        vertically(horizontally(pixels).into(), width)
    }
}

/// Pillow 13 starts with the rows that go, if height loses much more than width does (both width,
/// height). Found by trying: it holds for each of 3,000 pairs of sizes. Earlier versions never do.
fn is_vertical_first(from: (usize, usize), to: (usize, usize)) -> bool {
    // Sizes fit into 32 bits.
    let lost = |from: usize, to: usize| from as i64 - to as i64;
    let (width, height) = (lost(from.0, to.0), lost(from.1, to.1));
    height > 0 && height > 2 * width
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_of_every_window_sum_to_one() {
        for filter in [Resample::Bicubic, Resample::Bilinear] {
            for (from, to) in [(1, 7), (7, 1), (640, 224), (5, 5), (3, 1000), (1000, 3)] {
                for window in filter.windows(from, to) {
                    let sum: i32 = window.weights.iter().sum();
                    let error = (sum - (1 << PRECISION)).unsigned_abs() as usize;
                    // Each weight is rounded on its own.
                    assert!(error <= window.weights.len(), "{from} to {to}: {error}");
                    assert!(window.start + window.weights.len() <= from);
                }
            }
        }
    }

    #[test]
    fn halving_two_pixels_takes_their_mean() {
        let image = RgbImage::from_raw(2, 1, vec![0, 10, 100, 100, 20, 101]).unwrap();
        assert_eq!(resize(&image, 1, 1, Resample::Bicubic), [50, 15, 101]);
        assert_eq!(resize(&image, 1, 1, Resample::Bilinear), [50, 15, 101]);
    }

    #[test]
    fn tall_images_start_vertically() {
        assert!(is_vertical_first((500, 640), (364, 364)));
        assert!(!is_vertical_first((640, 480), (224, 224)));
        assert!(is_vertical_first((40, 51), (20, 10)) && !is_vertical_first((40, 50), (20, 10)));
        assert!(!is_vertical_first((10, 20), (24, 24)));
    }

    #[test]
    fn no_pixels_are_black() {
        assert_eq!(
            resize(&RgbImage::new(0, 3), 1, 2, Resample::Bicubic),
            [0; 6]
        );
    }

    proptest! {
        #[test]
        fn one_colour_stays_that_colour(
            from in (1u32..80, 1u32..80), to in (1usize..80, 1usize..80), colour: [u8; 3]
        ) {
            let image = RgbImage::from_pixel(from.0, from.1, Rgb(colour));
            let result = resize(&image, to.0, to.1, Resample::Bicubic);
            prop_assert_eq!(result.len(), 3 * to.0 * to.1);
            prop_assert!(result.chunks_exact(3).all(|pixel| pixel == colour));
        }
    }
}
