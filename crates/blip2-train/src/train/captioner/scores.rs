//! Scores after each epoch and at the end of a captioner's run.

use std::collections::BTreeMap;
use std::sync::Arc;

use blip2::Blip2Caption;
use blip2_data::CaptionSample;
use blip2_data::images::ImageSource;
use blip2_data::sample::Sample;
use serde::Serialize;

use crate::RunError;
use crate::evaluate::{
    EvalSettings, METRICS, SplitScores, best_constant, candidates, caption, empty_rate, score,
    write_results,
};
use crate::hash::{check_unchanged, tower_hashes};
use crate::recipe::{EvaluationConfig, Recipe};
use crate::report;
use crate::run::{EpochScores, RunFolder, Watch, write_json};
use crate::tasks::{CaptionTask, Task};
use crate::train::finished;
use crate::train::images::Pixels;
use crate::train::splits::Splits;

/// How many of the most frequent train captions are tried as the constant caption.
const CONSTANT_CANDIDATES: usize = 50;

/// `scores.json`.
#[derive(Debug, Serialize)]
pub struct FinalScores {
    /// The optimizer steps of the checkpoint that was scored.
    pub checkpoint_step: usize,
    /// Each test split.
    pub splits: BTreeMap<String, SplitScores>,
    /// What each split scores if every image gets the same caption.
    pub constant_caption: BTreeMap<String, ConstantCaption>,
    /// SHA-256 of each frozen tower, equal before and after.
    pub frozen_towers: BTreeMap<String, String>,
}

/// The best constant caption of a split.
#[derive(Debug, Serialize)]
pub struct ConstantCaption {
    /// The caption.
    pub caption: String,
    /// Its score.
    #[serde(rename = "CIDEr")]
    pub cider: f64,
}

/// Captions validation images.
pub(super) struct ValWatch {
    folder: RunFolder,
    samples: Arc<Vec<Sample>>,
    images: Arc<dyn ImageSource>,
    evaluation: EvaluationConfig,
    settings: EvalSettings,
}

impl ValWatch {
    /// Watches the first images of the validation split, which `images` holds.
    pub fn new(
        folder: &RunFolder,
        splits: &Splits,
        images: Arc<dyn ImageSource>,
        evaluation: &EvaluationConfig,
        settings: &EvalSettings,
    ) -> Self {
        Self {
            folder: folder.clone(),
            samples: splits.val.clone(),
            images,
            evaluation: evaluation.clone(),
            settings: settings.clone(),
        }
    }

    fn caption(
        &self,
        task: &CaptionTask,
        limit: usize,
    ) -> Result<(Vec<CaptionSample>, Arc<Vec<Sample>>), RunError> {
        let samples = Arc::new(self.samples[..limit.min(self.samples.len())].to_vec());
        let generation = &self.evaluation.val_generation;
        let (images, settings) = (&self.images, &self.settings);
        let captions = caption(
            &task.model,
            &samples,
            images,
            generation,
            settings,
            &|_, _| {},
        )?;
        Ok((captions, samples))
    }
}

impl Watch<CaptionTask> for ValWatch {
    fn scores(&self, task: &CaptionTask, epoch: usize) -> Result<EpochScores, RunError> {
        let limit = match self.evaluation.val_captions {
            0 => usize::MAX,
            limit => limit,
        };
        let (captions, samples) = self.caption(task, limit)?;
        let path = self.folder.captions(&format!("epoch-{epoch}"));
        if let Err(error) = write_results(&path, &captions) {
            // The run goes on without this file.
            tracing::error!("{error}");
        }
        let scores = score(&captions, &samples, &self.evaluation.val_metrics)?;
        Ok(EpochScores {
            best_by: scores.get(CaptionTask::SCORE).unwrap_or(0.0),
            all: scores
                .iter()
                .map(|(name, value)| (name.to_string(), value))
                .collect(),
        })
    }

    fn samples(&self, task: &CaptionTask) -> Result<BTreeMap<String, String>, RunError> {
        let (captions, _) = self.caption(task, self.evaluation.sample_captions)?;
        Ok(candidates(&captions))
    }
}

/// The end of a run.
pub(super) struct Finish<'a> {
    pub recipe: &'a Recipe,
    pub folder: &'a RunFolder,
    pub splits: &'a Splits,
    pub pixels: &'a Pixels,
    pub evaluation: &'a EvaluationConfig,
    pub settings: &'a EvalSettings,
}

impl Finish<'_> {
    /// Scores the tests, proves that the frozen towers are what they were, writes the report.
    pub fn score(
        &self,
        model: &Blip2Caption,
        checkpoint_step: usize,
        hashes: BTreeMap<String, String>,
    ) -> Result<(), RunError> {
        let mut scores = FinalScores {
            checkpoint_step,
            splits: BTreeMap::new(),
            constant_caption: BTreeMap::new(),
            frozen_towers: hashes,
        };
        let mut shown: Vec<(String, Arc<Vec<Sample>>, Vec<CaptionSample>)> = Vec::new();
        for (name, samples) in &self.splits.tests {
            let started = std::time::Instant::now();
            let bar = crate::cli::bar(&format!("captions of {name}"));
            let images: Arc<dyn ImageSource> = Arc::new(self.pixels.of(samples));
            let captions = caption(
                model,
                samples,
                &images,
                &self.evaluation.test_generation,
                self.settings,
                &|done, total| {
                    bar.set_length(total as u64);
                    bar.set_position(done as u64);
                },
            )
            .map_err(|error| error.resumable(self.folder))?;
            bar.finish_and_clear();
            write_results(&self.folder.captions(name), &captions)?;
            let seconds = started.elapsed().as_secs_f64();
            let split = SplitScores {
                images: captions.len(),
                scores: score(&captions, samples, METRICS)?,
                empty_rate: empty_rate(&captions),
                captions_per_s: captions.len() as f64 / seconds,
            };
            eprintln!("{name}: {}", report::score_line(&split.scores));
            scores.splits.insert(name.clone(), split);
            let (caption, cider) =
                best_constant(self.splits.common(), samples, CONSTANT_CANDIDATES)?;
            let constant = ConstantCaption { caption, cider };
            scores.constant_caption.insert(name.clone(), constant);
            shown.push((name.clone(), samples.clone(), captions));
        }
        check_unchanged(&scores.frozen_towers, &tower_hashes(model))?;
        write_json(&self.folder.scores(), &scores)?;
        let skips = &self.pixels.skips;
        report::write(self.folder, self.recipe, model, &scores, &shown, skips)?;
        finished(self.folder, skips);
        Ok(())
    }
}
