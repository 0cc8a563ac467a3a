//! Resize, rescale, normalise: `BlipImageProcessor`, in its Pillow form.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::augment::View;
use super::resize::resize;
use crate::DataError;

/// How images become tensors. Every field is written out: no hidden default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageProcessorConfig {
    /// Height and width after resizing, in pixels; the aspect ratio is not kept.
    pub size: [usize; 2],
    /// The filter of the resize.
    pub resample: Resample,
    /// Subtracted from each channel after scaling to 0–1.
    pub image_mean: [f32; 3],
    /// Divides each channel after that.
    pub image_std: [f32; 3],
}

/// Resize filters, with antialiasing as in Pillow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
    /// Pillow's bicubic: a convolution with a = −0.5.
    Bicubic,
    /// Pillow's bilinear.
    Bilinear,
}

/// Turns decoded images into normalised values.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    config: ImageProcessorConfig,
}

impl ImageProcessorConfig {
    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// Names the field.
    pub fn init(&self) -> Result<ImageProcessor, DataError> {
        let error = |field: &str, reason: &str| {
            Err(DataError::Config {
                field: format!("data_preprocessor.{field}"),
                reason: reason.into(),
            })
        };
        if self.size.contains(&0) || self.size.iter().any(|&side| side > 1 << 14) {
            return error("size", "must be between 1 and 16384");
        }
        if self
            .image_std
            .iter()
            .any(|&std| !(std > 0.0 && std.is_finite()))
        {
            return error("image_std", "must be positive numbers");
        }
        if self.image_mean.iter().any(|mean| !mean.is_finite()) {
            return error("image_mean", "must be numbers");
        }
        Ok(ImageProcessor {
            config: self.clone(),
        })
    }
}

impl ImageProcessor {
    /// Height and width of the result.
    pub fn size(&self) -> (usize, usize) {
        (self.config.size[0], self.config.size[1])
    }

    /// Resizes to 8-bit values as Pillow does, then scales and normalises them.
    ///
    /// Returns `[3, height, width]`, row-major.
    pub fn process(&self, image: &RgbImage) -> Vec<f32> {
        self.normalise(&self.resize(image))
    }

    /// As [`process`](Self::process), of a part of the image, changed as `view` says.
    ///
    /// Reference: torchvision's `RandomResizedCrop` on Pillow images, then LAVIS's operations.
    pub fn process_view(&self, image: &RgbImage, view: &View) -> Vec<f32> {
        let pixels = self.resize(&view.cut(image));
        self.normalise(&view.finish(pixels, self.config.size[1]))
    }

    fn resize(&self, image: &RgbImage) -> Vec<u8> {
        let (height, width) = self.size();
        resize(image, width, height, self.config.resample)
    }

    fn normalise(&self, pixels: &[u8]) -> Vec<f32> {
        let (height, width) = self.size();
        let area = height * width;
        let mut values = vec![0.0; 3 * area];
        let (red, rest) = values.split_at_mut(area);
        let (green, blue) = rest.split_at_mut(area);
        let [reds, greens, blues] = [0, 1, 2].map(|channel| self.levels(channel));
        let planes = red.iter_mut().zip(green).zip(blue);
        for (((red, green), blue), pixel) in planes.zip(pixels.chunks_exact(3)) {
            *red = reds[usize::from(pixel[0])];
            *green = greens[usize::from(pixel[1])];
            *blue = blues[usize::from(pixel[2])];
        }
        values
    }

    /// What a channel makes of each of the 256 values of a sample: a division each, in place of two
    /// for each pixel.
    fn levels(&self, channel: usize) -> [f32; 256] {
        let mean = self.config.image_mean[channel];
        let std = self.config.image_std[channel];
        std::array::from_fn(|sample| (sample as f32 / 255.0 - mean) / std)
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn config(size: [usize; 2]) -> ImageProcessorConfig {
        ImageProcessorConfig {
            size,
            resample: Resample::Bicubic,
            image_mean: [0.5, 0.25, 0.0],
            image_std: [0.5, 1.0, 2.0],
        }
    }

    #[test]
    fn channels_are_planes_and_normalised() {
        let image = RgbImage::from_pixel(7, 5, Rgb([255, 0, 51]));
        let values = config([2, 3]).init().unwrap().process(&image);
        assert_eq!(values.len(), 18);
        for (channel, expected) in [1.0, -0.25, 0.1].into_iter().enumerate() {
            for value in &values[channel * 6..channel * 6 + 6] {
                assert!((value - expected).abs() < 1e-6, "{channel}: {value}");
            }
        }
    }

    #[test]
    fn impossible_fields_are_named() {
        let mut zero_std = config([4, 4]);
        zero_std.image_std[1] = 0.0;
        for (config, field) in [(config([0, 4]), "size"), (zero_std, "image_std")] {
            let error = config.init().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
