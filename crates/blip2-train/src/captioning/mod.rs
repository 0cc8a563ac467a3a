//! Captions of a large set of images: batch by batch, by as many tasks as there are, each of which can
//! be stopped at any time and goes on where it was.
//!
//! Each task works on its part of a [`Collection`] and writes to files of its own ([`OutputFiles`]), so
//! that tasks need nothing of each other. Lines of JSON are the [`Journal`] of the work as well as its
//! result; a Parquet file is made of them at the end.

mod candidates;
mod error;
mod files;
mod journal;
mod parquet;
mod settings;

use std::sync::Arc;

use blip2::Blip2Caption;
use blip2_data::annotations::Skipped;
use blip2_data::collection::{Collection, CollectionBatch};
use blip2_data::transforms::ImageProcessor;
use blip2_data::{CaptionSample, Prediction};
use blip2_lm::GenerationConfig;
use burn::tensor::Device;
use serde::Serialize;

pub use candidates::read_candidates;
pub use error::CaptioningError;
pub use files::OutputFiles;
pub use journal::Journal;
pub use settings::Settings;

use crate::RunError;
use crate::run::StopSignal;

/// The captions of an image, as a line of JSON has them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaptionedImage {
    /// The image as it was named.
    pub image: String,
    /// Best first.
    pub captions: Vec<Prediction>,
}

/// How far an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It has no caption yet.
    Pending,
    /// Its captions are written.
    Captioned,
    /// It was left out.
    Skipped,
}

/// Where captions go. Items are known by their place in the collection.
pub trait Sink {
    /// How far item `item` is.
    fn progress(&self, item: usize) -> Progress;

    /// Takes the captions of a batch, those alone that are [`Pending`](Progress::Pending).
    ///
    /// # Errors
    ///
    /// If they can't be written.
    fn write(&mut self, captioned: Vec<(usize, CaptionedImage)>) -> Result<(), RunError>;

    /// Takes what is left out, with its item if it is one.
    ///
    /// # Errors
    ///
    /// If it can't be noted.
    fn skip(&mut self, skipped: Vec<(Option<usize>, Skipped)>) -> Result<(), RunError>;
}

/// How images are captioned.
#[derive(Debug)]
pub struct Captioner<'a> {
    /// The model.
    pub model: &'a Blip2Caption,
    /// Makes its pixels.
    pub processor: &'a ImageProcessor,
    /// How captions are written.
    pub generation: &'a GenerationConfig,
    /// What captions go on from where the collection does not say it, instead of the model's.
    pub prompt: Option<&'a str>,
    /// Captions of an image that are kept.
    pub num_captions: usize,
    /// Images at once.
    pub batch_size: usize,
    /// Where the model is.
    pub device: &'a Device,
}

impl Captioner<'_> {
    /// Captions the items of `collection` that are pending in `sink`, in order, and tells `show` of
    /// images that are finished. The next images are read meanwhile.
    ///
    /// Items are cut into batches by their places, whatever is finished: rounding depends on the
    /// images of a batch, and so a run that was interrupted in one computes all of it again and gives
    /// the bits that it would have given.
    ///
    /// # Errors
    ///
    /// An image that can't be read and may not be left out, a model that fails, a sink that can't be
    /// written, or an interruption; what was finished before is in the sink.
    pub fn run(
        &self,
        collection: &Arc<Collection>,
        sink: &mut dyn Sink,
        stop: &StopSignal,
        show: &mut dyn FnMut(usize),
    ) -> Result<(), RunError> {
        let problems = collection.problems().iter();
        sink.skip(problems.map(|problem| (None, problem.clone())).collect())?;
        let batches = self.batches(collection.items().len(), sink);
        let read = collection
            .clone()
            .read_ahead(batches, self.processor.clone(), self.device);
        for batch in read {
            let batch = batch?;
            let before = pending(&batch, sink);
            let failed = batch.failed.iter().map(|(item, error)| {
                let skipped = Skipped {
                    what: collection.items()[*item].name.clone(),
                    reason: error.to_string(),
                };
                (Some(*item), skipped)
            });
            sink.skip(failed.collect())?;
            let captioned = self.caption(collection, batch)?;
            let pending = captioned
                .into_iter()
                .filter(|(item, _)| sink.progress(*item) == Progress::Pending);
            sink.write(pending.collect())?;
            show(before);
            stop.check(None)?;
        }
        Ok(())
    }

    /// The batches with something pending in them.
    fn batches(&self, items: usize, sink: &dyn Sink) -> Vec<Vec<usize>> {
        let starts = (0..items).step_by(self.batch_size);
        let batches = starts.map(|start| start..items.min(start + self.batch_size));
        batches
            .filter(|batch| {
                batch
                    .clone()
                    .any(|item| sink.progress(item) == Progress::Pending)
            })
            .map(|batch| {
                batch
                    .filter(|&item| sink.progress(item) != Progress::Skipped)
                    .collect()
            })
            .collect()
    }

    fn caption(
        &self,
        collection: &Collection,
        batch: CollectionBatch,
    ) -> Result<Vec<(usize, CaptionedImage)>, RunError> {
        if batch.kept.is_empty() {
            return Ok(Vec::new());
        }
        let samples = batch.kept.iter().map(|&item| {
            let item = &collection.items()[item];
            CaptionSample {
                image_id: item.name.clone(),
                prompt: item.prompt.clone().or(self.prompt.map(str::to_string)),
                ..CaptionSample::default()
            }
        });
        let captioned = self
            .model
            .predict(batch.images, samples.collect(), self.generation)?;
        let lines = captioned
            .into_iter()
            .map(|sample| CaptionedImage::best(sample, self.num_captions));
        Ok(batch.kept.into_iter().zip(lines).collect())
    }
}

impl CaptionedImage {
    /// The best captions of a sample, `num_captions` at most.
    pub fn best(sample: CaptionSample, num_captions: usize) -> Self {
        let mut captions = sample.predictions;
        captions.truncate(num_captions);
        Self {
            image: sample.image_id,
            captions,
        }
    }
}

fn pending(batch: &CollectionBatch, sink: &dyn Sink) -> usize {
    let failed = batch.failed.iter().map(|(item, _)| *item);
    let items = batch.kept.iter().copied().chain(failed);
    items
        .filter(|&item| sink.progress(item) == Progress::Pending)
        .count()
}
