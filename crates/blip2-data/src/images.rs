//! Where a batch's images come from: decoded and preprocessed files, or what was kept of them.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::DataError;
use crate::sample::Sample;
use crate::skips::{OnError, SkipLog};
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
    let pixels: Vec<Result<Vec<f32>, DataError>> = samples
        .par_iter()
        .enumerate()
        .map(|(row, sample)| Ok(process(row, &decode(&sample.path, limits)?)))
        .collect();
    let name = |row: usize| samples[row].path.display().to_string();
    stack(pixels, name, size, skips, device)
}

/// Puts the rows that could be read into one tensor, `[kept, 3, height, width]`, and says which
/// they are.
///
/// # Errors
///
/// The first row's that may not be skipped; or the last one's if none is left.
pub(crate) fn stack(
    rows: Vec<Result<Vec<f32>, DataError>>,
    name: impl Fn(usize) -> String,
    (height, width): (usize, usize),
    skips: &SkipLog,
    device: &Device,
) -> Result<(Tensor<4>, Vec<usize>), DataError> {
    let (mut values, mut kept) = (Vec::new(), Vec::new());
    let mut last_error = None;
    for (row, result) in rows.into_iter().enumerate() {
        match result {
            Ok(image) => {
                values.extend(image);
                kept.push(row);
            }
            Err(error) if skips.on_error() == OnError::Skip && error.is_damage() => {
                skips.add(&name(row), &error);
                last_error = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let (true, Some(error)) = (kept.is_empty(), last_error) {
        return Err(error);
    }
    let data = TensorData::new(values, [kept.len(), 3, height, width]);
    Ok((Tensor::from_data(data, device), kept))
}
