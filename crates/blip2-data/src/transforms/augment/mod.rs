//! Augmentation of training images, as LAVIS has it: `blip2_image_train` is a random crop and a
//! flip, `blip_image_train` adds [`RandAugment`](RandAugmentConfig).
//!
//! What is random and what touches pixels are apart: [`Augmentation::draw`] makes a [`View`] out of
//! random numbers, and `ImageProcessor::process_view` applies it. The same numbers always give the
//! same pixels.

mod crop;
mod operations;
mod warp;

use image::RgbImage;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use crop::CropBox;
pub use operations::Operation;

use crate::DataError;

/// How training images differ from epoch to epoch. Every field is written out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentationConfig {
    /// The least and the greatest share of an image's area that a crop keeps; `[0.5, 1.0]` in
    /// LAVIS, `[0.08, 1.0]` in mmpretrain.
    pub crop_area: [f64; 2],
    /// The least and the greatest width of a crop divided by its height; `[0.75, 1.3333333333333333]` in
    /// both.
    pub crop_ratio: [f64; 2],
    /// How likely an image is mirrored.
    pub horizontal_flip: f64,
    /// Further operations: `blip_image_train`. Without this table it is `blip2_image_train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<RandAugmentConfig>,
}

/// Some operations of a fixed strength on each image, each of them with a chance of one half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandAugmentConfig {
    /// Operations drawn for an image; 2 in LAVIS.
    pub operations: usize,
    /// Their strength, up to 10; 5 in LAVIS.
    pub level: f64,
}

/// Draws [`View`]s.
#[derive(Debug, Clone)]
pub struct Augmentation {
    config: AugmentationConfig,
}

/// One way to look at one image.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The part of the image that is seen; it is resized to the model's size.
    pub crop: CropBox,
    /// Mirrors it.
    pub flip: bool,
    /// What is done to the resized pixels, in order.
    pub operations: Vec<Operation>,
}

impl AugmentationConfig {
    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// Names the field.
    pub fn init(&self) -> Result<Augmentation, DataError> {
        let error = |field: &str, reason: &str| {
            Err(DataError::Config {
                field: format!("augmentation.{field}"),
                reason: reason.into(),
            })
        };
        let [least, most] = self.crop_area;
        if !(least > 0.0 && least <= most && most <= 1.0) {
            return error(
                "crop_area",
                "must be two shares in (0, 1], the smaller first",
            );
        }
        let [least, most] = self.crop_ratio;
        if !(least > 0.0 && least <= most && most.is_finite()) {
            return error(
                "crop_ratio",
                "must be two positive numbers, the smaller first",
            );
        }
        if !(0.0..=1.0).contains(&self.horizontal_flip) {
            return error("horizontal_flip", "must be between 0 and 1");
        }
        if let Some(RandAugmentConfig { level, .. }) = self.rand_augment
            && !(0.0..=operations::MAX_LEVEL).contains(&level)
        {
            return error("rand_augment.level", "must be between 0 and 10");
        }
        Ok(Augmentation {
            config: self.clone(),
        })
    }
}

impl Augmentation {
    /// Draws a view of an image of `width` × `height`.
    pub fn draw(&self, width: u32, height: u32, rng: &mut ChaCha8Rng) -> View {
        let AugmentationConfig {
            crop_area,
            crop_ratio,
            horizontal_flip,
            rand_augment,
        } = &self.config;
        let crop = CropBox::draw((width, height), *crop_area, *crop_ratio, rng);
        let flip = rng.random::<f64>() < *horizontal_flip;
        let mut operations = Vec::new();
        if let Some(RandAugmentConfig {
            operations: count,
            level,
        }) = rand_augment
        {
            // The reference draws all kinds first.
            let kinds: Vec<usize> = (0..*count)
                .map(|_| rng.random_range(0..operations::KINDS))
                .collect();
            for kind in kinds {
                if rng.random::<f64>() <= 0.5 {
                    operations.push(Operation::of_kind(kind, *level, rng));
                }
            }
        }
        View {
            crop,
            flip,
            operations,
        }
    }
}

impl View {
    /// What happens before the resize.
    pub(super) fn cut(&self, image: &RgbImage) -> RgbImage {
        let CropBox {
            left,
            top,
            width,
            height,
        } = self.crop;
        image::imageops::crop_imm(image, left, top, width, height).to_image()
    }

    /// What happens to the `pixels` of the resize (`[height, width, 3]`).
    pub(super) fn finish(&self, pixels: Vec<u8>, width: usize) -> Vec<u8> {
        let mut pixels = pixels;
        if self.flip {
            for row in pixels.chunks_exact_mut(3 * width) {
                row.reverse();
                // The channels are in order again.
                row.chunks_exact_mut(3).for_each(<[u8]>::reverse);
            }
        }
        for operation in &self.operations {
            pixels = operation.apply(pixels, width);
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn lavis() -> AugmentationConfig {
        AugmentationConfig {
            crop_area: [0.5, 1.0],
            crop_ratio: [0.75, 4.0 / 3.0],
            horizontal_flip: 0.5,
            rand_augment: Some(RandAugmentConfig {
                operations: 2,
                level: 5.0,
            }),
        }
    }

    #[test]
    fn the_same_numbers_give_the_same_view_and_others_another() {
        let augmentation = lavis().init().unwrap();
        let draw = |seed| augmentation.draw(640, 480, &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn flips_and_operations_are_as_frequent_as_asked() {
        let augmentation = lavis().init().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let views: Vec<View> = (0..4000)
            .map(|_| augmentation.draw(64, 64, &mut rng))
            .collect();
        let flips = views.iter().filter(|view| view.flip).count();
        let operations: usize = views.iter().map(|view| view.operations.len()).sum();
        // Half of 4000 and of 8000; five standard deviations are 158 and 224.
        assert!(flips.abs_diff(2000) < 158, "{flips}");
        assert!(operations.abs_diff(4000) < 224, "{operations}");
    }

    #[test]
    fn impossible_fields_are_named() {
        let mut wrong = [lavis(), lavis(), lavis(), lavis()];
        wrong[0].crop_area = [0.9, 0.5];
        wrong[1].crop_ratio[0] = 0.0;
        wrong[2].horizontal_flip = f64::NAN;
        wrong[3].rand_augment.as_mut().unwrap().level = 11.0;
        let fields = [
            "crop_area",
            "crop_ratio",
            "horizontal_flip",
            "rand_augment.level",
        ];
        for (config, field) in wrong.iter().zip(fields) {
            let error = config.init().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn flipping_mirrors_pixels_and_keeps_channels() {
        let view = View {
            crop: CropBox::whole(2, 1),
            flip: true,
            operations: Vec::new(),
        };
        assert_eq!(view.finish(vec![1, 2, 3, 4, 5, 6], 2), [4, 5, 6, 1, 2, 3]);
    }
}
