//! Samples as the model takes and returns them, and the batches of images and captions.

use std::sync::Arc;

use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::images::{ImageInput, ImageSource, Look};
use crate::loader::BatchSource;
use crate::sample::Sample;

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
    /// Pixels, or what a frozen image encoder made of them.
    pub images: ImageInput,
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

impl CaptionChoice {
    /// What an epoch goes over: (sample, caption), the caption chosen later where it is none.
    pub fn items(self, samples: &[Sample]) -> Vec<(usize, Option<usize>)> {
        let every = samples.iter().enumerate();
        match self {
            Self::All => every
                .flat_map(|(index, sample)| {
                    (0..sample.captions.len()).map(move |caption| (index, Some(caption)))
                })
                .collect(),
            Self::Random => every.map(|(index, _)| (index, None)).collect(),
            Self::First => every.map(|(index, _)| (index, Some(0))).collect(),
        }
    }
}

/// Which views of an image the epochs show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Views {
    /// A new one at every look.
    Fresh,
    /// So many, in turn; the captions of an image go to different ones.
    Fixed(usize),
}

/// Puts images and captions together for training or evaluation.
pub struct CaptionSource {
    samples: Arc<Vec<Sample>>,
    images: Arc<dyn ImageSource>,
    /// (sample, caption) of each item; the caption is chosen later where it is none.
    items: Vec<(usize, Option<usize>)>,
    choice: CaptionChoice,
    views: Views,
    seed: u64,
}

impl CaptionSource {
    /// A source over `samples`, whose images come from `images`.
    pub fn new(
        samples: Arc<Vec<Sample>>,
        images: Arc<dyn ImageSource>,
        choice: CaptionChoice,
        views: Views,
        seed: u64,
    ) -> Self {
        let items = choice.items(&samples);
        Self {
            samples,
            images,
            items,
            choice,
            views,
            seed,
        }
    }

    fn look(&self, epoch: usize, item: usize) -> Look {
        let (sample, caption) = self.items[item];
        match self.views {
            Views::Fresh => Look {
                sample,
                view: epoch,
                index: item,
            },
            Views::Fixed(views) => Look {
                sample,
                // Epochs count from 1.
                view: (epoch.saturating_sub(1) + caption.unwrap_or(0)) % views.max(1),
                index: sample,
            },
        }
    }

    fn text(&self, epoch: usize, item: usize) -> Option<String> {
        let (sample, caption) = self.items[item];
        let captions = &self.samples[sample].captions;
        let caption = match caption {
            Some(caption) => caption,
            None if captions.is_empty() => return None,
            None => draw_caption(self.seed, epoch, item, captions.len()),
        };
        captions.get(caption).cloned()
    }
}

/// One of `captions` captions, by (seed, epoch, item).
pub(crate) fn draw_caption(seed: u64, epoch: usize, item: usize, captions: usize) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ epoch as u64);
    rng.set_stream(item as u64);
    rng.random_range(0..captions)
}

impl std::fmt::Debug for CaptionSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptionSource")
            .field("samples", &self.samples.len())
            .field("items", &self.items.len())
            .field("choice", &self.choice)
            .field("views", &self.views)
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
        let looks: Vec<Look> = items.iter().map(|&item| self.look(epoch, item)).collect();
        let (images, kept) = self.images.read(&looks, device)?;
        let samples = kept
            .into_iter()
            .map(|row| CaptionSample {
                image_id: self.samples[looks[row].sample].image_id.clone(),
                text: self.text(epoch, items[row]),
                ..CaptionSample::default()
            })
            .collect();
        Ok(CaptionBatch { images, samples })
    }
}
