//! Samples as the model takes and returns them, and the batches of images and captions.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::loader::BatchSource;
use crate::sample::Sample;
use crate::skips::{OnError, SkipLog};
use crate::transforms::{DecodeLimits, ImageProcessor, decode};

/// One image's text, before and after the model.
///
/// `Blip2Caption::loss` reads `text`, `Blip2Caption::predict` reads `prompt` and fills
/// `pred_caption` and `predictions`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CaptionSample {
    /// The image's id in its annotation file.
    pub image_id: String,
    /// The caption to learn, without prompt.
    pub text: Option<String>,
    /// Overrides the model's prompt for this image.
    pub prompt: Option<String>,
    /// The best generated caption.
    pub pred_caption: Option<String>,
    /// All `num_captions` generated captions, best first.
    pub predictions: Vec<Prediction>,
}

/// One generated caption.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The decoded new tokens, trimmed.
    pub caption: String,
    /// The new tokens only, the end token included if it was produced.
    pub token_ids: Vec<u32>,
    /// The sum of log-probabilities; under beam search divided by length^`length_penalty`.
    pub score: f32,
}

/// A batch for `Blip2Caption`.
#[derive(Debug, Clone)]
pub struct CaptionBatch {
    /// `[batch, 3, height, width]`, normalised.
    pub images: Tensor<4>,
    /// One for each image.
    pub samples: Vec<CaptionSample>,
}

/// Which captions of an image an epoch shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionChoice {
    /// Every caption once, each with its image: LAVIS and mmpretrain on COCO.
    All,
    /// Every image once, with a caption drawn by (seed, epoch, index).
    Random,
    /// Every image once, with its first caption.
    First,
}

/// Reads images and captions for training or evaluation.
pub struct CaptionSource {
    samples: Arc<Vec<Sample>>,
    /// (sample, caption) of each item; the caption is chosen later where it is none.
    items: Vec<(usize, Option<usize>)>,
    processor: ImageProcessor,
    choice: CaptionChoice,
    seed: u64,
    limits: DecodeLimits,
    skips: SkipLog,
}

impl CaptionSource {
    /// A source over `samples`. Images that can't be read are handled as `skips` says.
    pub fn new(
        samples: Arc<Vec<Sample>>,
        processor: ImageProcessor,
        choice: CaptionChoice,
        seed: u64,
        skips: SkipLog,
    ) -> Self {
        let items = match choice {
            CaptionChoice::All => samples
                .iter()
                .enumerate()
                .flat_map(|(index, sample)| {
                    (0..sample.captions.len()).map(move |caption| (index, Some(caption)))
                })
                .collect(),
            CaptionChoice::Random => (0..samples.len()).map(|index| (index, None)).collect(),
            CaptionChoice::First => (0..samples.len()).map(|index| (index, Some(0))).collect(),
        };
        Self {
            samples,
            items,
            processor,
            choice,
            seed,
            limits: DecodeLimits::default(),
            skips,
        }
    }

    fn text(&self, epoch: usize, item: usize) -> Option<String> {
        let (sample, caption) = self.items[item];
        let captions = &self.samples[sample].captions;
        let caption = match caption {
            Some(caption) => caption,
            None if captions.is_empty() => return None,
            None => {
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ epoch as u64);
                rng.set_stream(item as u64);
                rng.random_range(0..captions.len())
            }
        };
        captions.get(caption).cloned()
    }
}

impl std::fmt::Debug for CaptionSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptionSource")
            .field("samples", &self.samples.len())
            .field("items", &self.items.len())
            .field("choice", &self.choice)
            .finish()
    }
}

impl BatchSource for CaptionSource {
    type Batch = CaptionBatch;

    fn num_items(&self) -> usize {
        self.items.len()
    }

    fn batch(
        &self,
        epoch: usize,
        items: &[usize],
        device: &Device,
    ) -> Result<CaptionBatch, DataError> {
        let samples: Vec<&Sample> = items
            .iter()
            .map(|&item| &self.samples[self.items[item].0])
            .collect();
        let (images, kept) =
            read_images(&samples, &self.processor, &self.limits, &self.skips, device)?;
        let samples = kept
            .into_iter()
            .map(|row| CaptionSample {
                image_id: samples[row].image_id.clone(),
                text: self.text(epoch, items[row]),
                ..CaptionSample::default()
            })
            .collect();
        Ok(CaptionBatch { images, samples })
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
    let pixels: Vec<Result<Vec<f32>, DataError>> = samples
        .par_iter()
        .map(|sample| Ok(processor.process(&decode(&sample.path, limits)?)))
        .collect();
    let (mut values, mut kept) = (Vec::new(), Vec::new());
    let mut last_error = None;
    for (row, result) in pixels.into_iter().enumerate() {
        match result {
            Ok(image) => {
                values.extend(image);
                kept.push(row);
            }
            Err(error) if skips.on_error() == OnError::Skip => {
                skips.add(&samples[row].path.display().to_string(), &error);
                last_error = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let (true, Some(error)) = (kept.is_empty(), last_error) {
        return Err(error);
    }
    let (height, width) = processor.size();
    let data = TensorData::new(values, [kept.len(), 3, height, width]);
    Ok((Tensor::from_data(data, device), kept))
}
