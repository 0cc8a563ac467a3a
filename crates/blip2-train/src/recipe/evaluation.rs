//! The tables `[evaluation]` and `[retrieval]`.

use blip2_eval::Metric;
use blip2_lm::GenerationConfig;
use serde::{Deserialize, Serialize};

/// Validation after each epoch, tests at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Images a batch.
    pub batch_size: usize,
    /// Validation images that are captioned after each epoch; 0 for all.
    pub val_captions: usize,
    /// What is computed of them; the best checkpoint is chosen by CIDEr.
    #[serde(default = "cider")]
    pub val_metrics: Vec<Metric>,
    /// The first so many validation images are captioned every `sample_every` steps, for the
    /// report.
    #[serde(default)]
    pub sample_captions: usize,
    /// Optimizer steps between sample captions; 0 for none.
    #[serde(default)]
    pub sample_every: usize,
    /// How validation captions are made.
    pub val_generation: GenerationConfig,
    /// How test captions are made.
    pub test_generation: GenerationConfig,
}

fn cider() -> Vec<Metric> {
    vec![Metric::Cider]
}

impl EvaluationConfig {
    /// Checks what serde can't.
    pub(super) fn validate(&self) -> Result<(), String> {
        if !self.val_metrics.contains(&Metric::Cider) {
            return Err(
                "field `evaluation.val_metrics` must hold CIDEr, which chooses the best \
                        checkpoint"
                    .into(),
            );
        }
        let needs_data = [Metric::Meteor, Metric::CiderD, Metric::Spice];
        if self
            .val_metrics
            .iter()
            .any(|metric| needs_data.contains(metric))
        {
            return Err(
                "field `evaluation.val_metrics`: METEOR, CIDErD and SPICE need data and \
                        programs of others; score the finished run with `blip2 evaluate`"
                    .into(),
            );
        }
        Ok(())
    }
}

/// The table `[retrieval]`: texts and images are looked for among each other, all captions of each
/// image counting as right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrievalConfig {
    /// Images a batch.
    pub batch_size: usize,
    /// The first so many validation images are looked for after each epoch; 0 for all. Their mean
    /// recall chooses the best checkpoint.
    pub val_images: usize,
    /// Candidates of each query that matching puts in order after each epoch; 0 for none.
    pub val_rerank: usize,
    /// The same for the tests; 128 in the paper (`k_test`).
    pub test_rerank: usize,
}
