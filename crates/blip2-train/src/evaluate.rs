//! Captions, loss and COCO scores of a split.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use blip2::Blip2Caption;
use blip2_data::CaptionSample;
use blip2_data::batch::CaptionChoice;
use blip2_data::images::ImageSource;
use blip2_data::sample::Sample;
use blip2_eval::{Captions, Metric, Scorer, Scores};
use blip2_lm::GenerationConfig;
use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::RunError;
use crate::data::{eval_loader, references};
use crate::run::{StopSignal, write_json};

/// How a split is read and captioned.
#[derive(Debug, Clone)]
pub struct EvalSettings {
    /// Images a batch.
    pub batch_size: usize,
    /// Threads that read ahead.
    pub num_workers: usize,
    /// The plain device.
    pub device: Device,
    /// Asked to stop?
    pub stop: StopSignal,
}

/// The scores of one split; the file `scores.json` holds one for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitScores {
    /// Images captioned.
    pub images: usize,
    /// COCO scores, as fractions.
    pub scores: Scores,
    /// The fraction of empty captions.
    pub empty_rate: f64,
    /// Captions a second.
    pub captions_per_s: f64,
}

/// Captions every image of `samples`, as `images` has them.
///
/// # Errors
///
/// An unreadable image (unless skipped), a failed generation, or a request to stop.
pub fn caption(
    model: &Blip2Caption,
    samples: &Arc<Vec<Sample>>,
    images: &Arc<dyn ImageSource>,
    generation: &GenerationConfig,
    settings: &EvalSettings,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<CaptionSample>, RunError> {
    let loader = loader(samples, images, CaptionChoice::First, settings);
    let mut captions = Vec::with_capacity(samples.len());
    for batch in loader.iter() {
        settings.stop.check(None)?;
        let batch = batch.map_err(|error| RunError::Training(error.to_string()))?;
        captions.extend(model.predict(batch.images, batch.samples, generation)?);
        progress(captions.len(), samples.len());
    }
    Ok(captions)
}

/// The token mean of the caption cross-entropy over every caption of `samples`, and the tokens.
///
/// # Errors
///
/// As [`caption`].
pub fn loss(
    model: &Blip2Caption,
    samples: &Arc<Vec<Sample>>,
    images: &Arc<dyn ImageSource>,
    settings: &EvalSettings,
    progress: &dyn Fn(usize, usize),
) -> Result<(f64, usize), RunError> {
    let loader = loader(samples, images, CaptionChoice::All, settings);
    let total = loader.num_items();
    let (mut sum, mut tokens, mut done) = (0.0, 0, 0);
    for batch in loader.iter() {
        settings.stop.check(None)?;
        let batch = batch.map_err(|error| RunError::Training(error.to_string()))?;
        let losses = model.loss(batch.images, &batch.samples)?;
        sum += f64::from(losses.loss.into_scalar::<f32>()) * losses.tokens as f64;
        tokens += losses.tokens;
        done += batch.samples.len();
        progress(done, total);
    }
    Ok((sum / tokens.max(1) as f64, tokens))
}

fn loader(
    samples: &Arc<Vec<Sample>>,
    images: &Arc<dyn ImageSource>,
    choice: CaptionChoice,
    settings: &EvalSettings,
) -> blip2_data::loader::PrefetchLoader<blip2_data::batch::CaptionSource> {
    eval_loader(
        samples.clone(),
        images.clone(),
        choice,
        settings.batch_size,
        settings.num_workers,
        &settings.device,
    )
}

/// Scores captions against the references of their images.
///
/// # Errors
///
/// If an image has no reference.
pub fn score(
    captions: &[CaptionSample],
    samples: &[Sample],
    metrics: &[Metric],
) -> Result<Scores, RunError> {
    let captioned = candidates(captions);
    let mut references: Captions = references(samples);
    // Skipped images have no caption and do not count.
    references.retain(|id, _| captioned.contains_key(id));
    Ok(Scorer::new(&references)?.score(&captioned, metrics)?.scores)
}

/// The metrics of a training run: those that need no data of others.
pub const METRICS: &[Metric] = &[Metric::Bleu, Metric::RougeL, Metric::Cider];

/// The best caption of each image, by id.
pub fn candidates(captions: &[CaptionSample]) -> BTreeMap<String, String> {
    captions
        .iter()
        .map(|sample| {
            let caption = sample.pred_caption.clone().unwrap_or_default();
            (sample.image_id.clone(), caption)
        })
        .collect()
}

/// The fraction of captions without a word.
pub fn empty_rate(captions: &[CaptionSample]) -> f64 {
    let empty = captions.iter().filter(|sample| {
        sample
            .pred_caption
            .as_deref()
            .unwrap_or_default()
            .is_empty()
    });
    empty.count() as f64 / captions.len().max(1) as f64
}

#[derive(Serialize)]
struct CocoResult<'a> {
    image_id: serde_json::Value,
    caption: &'a str,
}

/// Writes captions in the COCO result format; ids that are numbers are written as numbers.
///
/// # Errors
///
/// If the file can't be written.
pub fn write_results(path: &Path, captions: &[CaptionSample]) -> Result<(), RunError> {
    let results: Vec<CocoResult> = captions
        .iter()
        .map(|sample| CocoResult {
            image_id: number_or_text(&sample.image_id),
            caption: sample.pred_caption.as_deref().unwrap_or_default(),
        })
        .collect();
    write_json(path, &results)
}

fn number_or_text(id: &str) -> serde_json::Value {
    match id.parse::<u64>() {
        // "007" is no number: it would come back as "7".
        Ok(number) if number.to_string() == id => number.into(),
        _ => id.into(),
    }
}

/// The caption that scores best (CIDEr) when every image gets it, out of the captions that occur
/// most often in `train`; a model must beat it by far to be worth anything.
///
/// # Errors
///
/// If the references can't be scored.
pub fn best_constant(
    train: &[Sample],
    test: &[Sample],
    candidates: usize,
) -> Result<(String, f64), RunError> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for caption in train.iter().flat_map(|sample| &sample.captions) {
        *counts.entry(caption).or_default() += 1;
    }
    let mut frequent: Vec<(&str, usize)> = counts.into_iter().collect();
    frequent.sort_by_key(|&(caption, count)| (std::cmp::Reverse(count), caption));
    let scorer = Scorer::new(&references(test))?;
    let mut best = (String::new(), 0.0);
    for (caption, _) in frequent.into_iter().take(candidates) {
        let everywhere = test
            .iter()
            .map(|sample| (sample.image_id.clone(), caption.to_string()))
            .collect();
        let scores = scorer.score(&everywhere, &[Metric::Cider])?.scores;
        let cider = scores.get("CIDEr").unwrap_or(0.0);
        if cider > best.1 {
            best = (caption.to_string(), cider);
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_kind() {
        assert_eq!(number_or_text("42"), serde_json::json!(42));
        assert_eq!(number_or_text("007"), serde_json::json!("007"));
        assert_eq!(number_or_text("val_1"), serde_json::json!("val_1"));
    }
}
