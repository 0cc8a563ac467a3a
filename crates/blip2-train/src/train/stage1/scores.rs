//! Retrieval after each epoch and at the end of a run of stage 1.

use std::collections::BTreeMap;
use std::sync::Arc;

use blip2::stage1::Blip2Qformer;
use blip2_data::images::ImageSource;
use blip2_data::sample::Sample;
use serde::Serialize;

use crate::RunError;
use crate::data::clean_captions;
use crate::evaluate::EvalSettings;
use crate::hash::{check_unchanged, vision_hash};
use crate::recipe::{Recipe, RetrievalConfig};
use crate::report;
use crate::retrieval::{Found, Retrieval};
use crate::run::{EpochScores, RunFolder, Watch, write_json};
use crate::tasks::Stage1Task;
use crate::train::finished;
use crate::train::images::Pixels;
use crate::train::splits::Splits;

/// `scores.json`.
#[derive(Debug, Serialize)]
pub struct Stage1Scores {
    /// The optimizer steps of the checkpoint that was scored.
    pub checkpoint_step: usize,
    /// Each test split.
    pub splits: BTreeMap<String, Found>,
    /// SHA-256 of the image encoder, if it is frozen, equal before and after.
    pub frozen_towers: BTreeMap<String, String>,
}

/// Looks for validation images and their captions.
pub(super) struct RetrievalWatch {
    samples: Arc<Vec<Sample>>,
    images: Arc<dyn ImageSource>,
    rerank: usize,
    settings: EvalSettings,
}

impl RetrievalWatch {
    /// Watches the first images of the validation split, which `images` holds.
    pub fn new(
        splits: &Splits,
        images: Arc<dyn ImageSource>,
        config: &RetrievalConfig,
        settings: &EvalSettings,
    ) -> Self {
        let limit = match config.val_images {
            0 => usize::MAX,
            limit => limit,
        };
        // As they are learned: the text side knows no other spelling.
        let samples = &splits.val_learned;
        Self {
            samples: Arc::new(samples[..limit.min(samples.len())].to_vec()),
            images,
            rerank: config.val_rerank,
            settings: settings.clone(),
        }
    }
}

impl Watch<Stage1Task> for RetrievalWatch {
    fn scores(&self, task: &Stage1Task, _epoch: usize) -> Result<EpochScores, RunError> {
        let retrieval = Retrieval {
            model: &task.model,
            samples: &self.samples,
            images: &self.images,
            rerank: self.rerank,
            settings: &self.settings,
        };
        let found = retrieval.run(&|_, _, _| {})?;
        Ok(EpochScores {
            best_by: found.itm.r_mean,
            all: found
                .itm
                .iter()
                .map(|(name, value)| (name.to_string(), value))
                .collect(),
        })
    }

    fn samples(&self, _task: &Stage1Task) -> Result<BTreeMap<String, String>, RunError> {
        Ok(BTreeMap::new())
    }
}

/// The end of a run.
pub(super) struct Finish<'a> {
    pub recipe: &'a Recipe,
    pub folder: &'a RunFolder,
    pub splits: &'a Splits,
    pub pixels: &'a Pixels,
    pub retrieval: &'a RetrievalConfig,
    pub settings: &'a EvalSettings,
}

impl Finish<'_> {
    /// Scores the tests, proves that the frozen image encoder is what it was, writes the report.
    pub fn score(
        &self,
        model: &Blip2Qformer,
        checkpoint_step: usize,
        hashes: BTreeMap<String, String>,
    ) -> Result<(), RunError> {
        let mut splits = BTreeMap::new();
        for (name, samples) in &self.splits.tests {
            let bar = crate::cli::bar(&format!("retrieval in {name}"));
            // As they are learned: the text side knows no other spelling.
            let cleaning = self.recipe.data.caption_cleaning.as_ref();
            let samples = clean_captions(samples.clone(), cleaning, &self.pixels.skips)?.learned;
            let images: Arc<dyn ImageSource> = Arc::new(self.pixels.of(&samples));
            let retrieval = Retrieval {
                model,
                samples: &samples,
                images: &images,
                rerank: self.retrieval.test_rerank,
                settings: self.settings,
            };
            let found = retrieval
                .run(&|what, done, total| {
                    bar.set_message(format!("{what} of {name}"));
                    bar.set_length(total as u64);
                    bar.set_position(done as u64);
                })
                .map_err(|error| error.resumable(self.folder))?;
            bar.finish_and_clear();
            for (order, scores) in [("contrast", found.itc), ("matching", found.itm)] {
                eprintln!("{name}, {order}: {}", report::recall_line(&scores));
            }
            splits.insert(name.clone(), found);
        }
        check_unchanged(&hashes, &vision_hash(&model.vision_backbone))?;
        let scores = Stage1Scores {
            checkpoint_step,
            splits,
            frozen_towers: hashes,
        };
        write_json(&self.folder.scores(), &scores)?;
        let skips = &self.pixels.skips;
        report::write_stage1(self.folder, self.recipe, model, &scores, skips)?;
        finished(self.folder, skips);
        Ok(())
    }
}
