//! Where a batch's images come from: decoded and preprocessed files, or what was kept of them.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::DataError;
use crate::sample::Sample;
use crate::skips::SkipLog;
use crate::transforms::{Augmentation, DecodeLimits, ImageProcessor, decode};

/// The images of a batch.
#[derive(Debug, Clone)]
pub enum ImageInput {
    /// `[batch, 3, height, width]`, normalised.
    Pixels(Tensor<4>),
    /// What a frozen image encoder makes of them: `[batch, image_tokens, vision_width]`.
    Embeds(Tensor<3>),
}

impl From<Tensor<4>> for ImageInput {
    fn from(pixels: Tensor<4>) -> Self {
        Self::Pixels(pixels)
    }
}

impl From<Tensor<3>> for ImageInput {
    fn from(image_embeds: Tensor<3>) -> Self {
        Self::Embeds(image_embeds)
    }
}

/// One look at one image. Two looks with equal fields see the same pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The image's index in its split.
    pub sample: usize,
    /// The epoch, or the number of one of a few fixed views.
    pub view: usize,
    /// The place in the epoch, or the image's index for fixed views.
    pub index: usize,
}

/// Reads the images of a split.
pub trait ImageSource: Send + Sync + 'static {
    /// The images of `looks` on `device`, and which of them were kept, in order.
    ///
    /// # Errors
    ///
    /// The first image that can't be read, unless such images are skipped; or if none is left.
    fn read(&self, looks: &[Look], device: &Device) -> Result<(ImageInput, Vec<usize>), DataError>;
}

/// How decoded images become values: whole, or through a view drawn for each look.
#[derive(Debug, Clone)]
pub struct Preparation {
    processor: ImageProcessor,
    augmentation: Option<Augmentation>,
    seed: u64,
    /// What an image may ask of the decoder.
    pub limits: DecodeLimits,
}

impl Preparation {
    /// Whole images, unchanged.
    pub fn new(processor: ImageProcessor) -> Self {
        Self {
            processor,
            augmentation: None,
            seed: 0,
            limits: DecodeLimits::default(),
        }
    }

    /// Each look through the view that `augmentation` draws from `seed`.
    pub fn with_augmentation(self, augmentation: Augmentation, seed: u64) -> Self {
        Self {
            augmentation: Some(augmentation),
            seed,
            ..self
        }
    }

    /// Height and width of the result.
    pub fn size(&self) -> (usize, usize) {
        self.processor.size()
    }

    /// `[3, height, width]`, row-major.
    pub fn pixels(&self, image: &RgbImage, look: &Look) -> Vec<f32> {
        let Some(augmentation) = &self.augmentation else {
            return self.processor.process(image);
        };
        // Views of one image are as far apart as those of two.
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ ((look.view as u64) << 32));
        rng.set_stream(look.index as u64);
        let view = augmentation.draw(image.width(), image.height(), &mut rng);
        self.processor.process_view(image, &view)
    }
}

/// Decodes and preprocesses image files.
#[derive(Debug, Clone)]
pub struct PixelSource {
    samples: Arc<Vec<Sample>>,
    preparation: Preparation,
    skips: SkipLog,
}

impl PixelSource {
    /// The images of `samples`, whole and unchanged. Images that can't be read are handled as
    /// `skips` says.
    pub fn new(samples: Arc<Vec<Sample>>, processor: ImageProcessor, skips: SkipLog) -> Self {
        Self {
            samples,
            preparation: Preparation::new(processor),
            skips,
        }
    }

    /// The same images, each look through the view that `augmentation` draws from `seed`.
    pub fn with_augmentation(self, augmentation: Augmentation, seed: u64) -> Self {
        Self {
            preparation: self.preparation.with_augmentation(augmentation, seed),
            ..self
        }
    }
}

impl ImageSource for PixelSource {
    fn read(&self, looks: &[Look], device: &Device) -> Result<(ImageInput, Vec<usize>), DataError> {
        let samples: Vec<&Sample> = looks
            .iter()
            .map(|look| &self.samples[look.sample])
            .collect();
        let preparation = &self.preparation;
        let (images, kept) = read(
            &samples,
            preparation.size(),
            |row, image| preparation.pixels(image, &looks[row]),
            &preparation.limits,
            &self.skips,
            device,
        )?;
        Ok((ImageInput::Pixels(images), kept))
    }
}

/// Reads and preprocesses the images of `samples` side by side.
///
/// Returns `[kept, 3, height, width]` on `device` and the rows that were kept, in order. Unreadable
/// images are left out, counted and named in `skips` if it is set to skip.
///
/// # Errors
///
/// The first image that can't be read, if `skips` is set to fail; or if none is left.
pub fn read_images(
    samples: &[&Sample],
    processor: &ImageProcessor,
    limits: &DecodeLimits,
    skips: &SkipLog,
    device: &Device,
) -> Result<(Tensor<4>, Vec<usize>), DataError> {
    let process = |_row: usize, image: &RgbImage| processor.process(image);
    read(samples, processor.size(), process, limits, skips, device)
}

fn read(
    samples: &[&Sample],
    size: (usize, usize),
    process: impl Fn(usize, &RgbImage) -> Vec<f32> + Sync,
    limits: &DecodeLimits,
    skips: &SkipLog,
    device: &Device,
) -> Result<(Tensor<4>, Vec<usize>), DataError> {
    let read = |row: usize| Ok((process(row, &decode(&samples[row].path, limits)?), row));
    let name = |row: usize| samples[row].path.display().to_string();
    stack(samples.len(), read, name, size, skips, device)
}

/// Reads `count` rows side by side into one tensor, `[kept, 3, height, width]`. `read` gives a row's
/// values and what else belongs to it; that of the rows that could be read is returned, in order.
///
/// # Errors
///
/// The first row's that may not be skipped; or the last one's if none is left.
pub(crate) fn stack<T: Send>(
    count: usize,
    read: impl Fn(usize) -> Result<(Vec<f32>, T), DataError> + Sync,
    name: impl Fn(usize) -> String,
    size: (usize, usize),
    skips: &SkipLog,
    device: &Device,
) -> Result<(Tensor<4>, Vec<T>), DataError> {
    let mut last_error = None;
    let leave_out = |row: usize, error: DataError| {
        last_error = Some(skips.leave_out(&name(row), error)?);
        Ok(())
    };
    let (images, kept) = stack_kept(count, read, leave_out, size, device)?;
    match last_error {
        Some(error) if kept.is_empty() => Err(error),
        _ => Ok((images, kept)),
    }
}

/// The same where none may be left. `leave_out` takes the errors of rows, in order, and gives the one
/// that ends it.
pub(crate) fn stack_kept<T: Send>(
    count: usize,
    read: impl Fn(usize) -> Result<(Vec<f32>, T), DataError> + Sync,
    mut leave_out: impl FnMut(usize, DataError) -> Result<(), DataError>,
    (height, width): (usize, usize),
    device: &Device,
) -> Result<(Tensor<4>, Vec<T>), DataError> {
    let len = 3 * height * width;
    let mut values = vec![0.0; count * len];
    // Each row goes to its place while it is in the core's cache.
    let rows: Vec<Result<T, DataError>> = values
        .par_chunks_exact_mut(len)
        .enumerate()
        .map(|(row, place)| {
            let (values, rest) = read(row)?;
            place.copy_from_slice(&values);
            Ok(rest)
        })
        .collect();
    let mut kept = Vec::with_capacity(count);
    for (row, result) in rows.into_iter().enumerate() {
        match result {
            Ok(rest) => {
                if kept.len() < row {
                    values.copy_within(row * len..(row + 1) * len, kept.len() * len);
                }
                kept.push(rest);
            }
            Err(error) => leave_out(row, error)?,
        }
    }
    values.truncate(kept.len() * len);
    let data = TensorData::new(values, [kept.len(), 3, height, width]);
    Ok((Tensor::from_data(data, device), kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skips::OnError;

    #[test]
    fn rows_that_can_not_be_read_leave_no_gap() {
        let read = |row: usize| match row {
            0 | 2 => Err(DataError::Image {
                path: "bad.jpg".into(),
                reason: "it is damaged".into(),
            }),
            _ => Ok((vec![row as f32; 6], row)),
        };
        let name = |row: usize| row.to_string();
        let (skips, device) = (SkipLog::new(OnError::Skip), Device::default());
        let (images, kept) = stack(5, read, name, (1, 2), &skips, &device).unwrap();
        assert_eq!(images.dims(), [3, 3, 1, 2]);
        assert_eq!(kept, [1, 3, 4]);
        let values = images.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(values, [[1.0; 6], [3.0; 6], [4.0; 6]].concat());
        let failing = SkipLog::new(OnError::Fail);
        assert!(stack(5, read, name, (1, 2), &failing, &device).is_err());
        assert!(stack(1, read, name, (1, 2), &skips, &device).is_err());
    }
}
