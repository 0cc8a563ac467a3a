//! The recipe: one TOML file tells one whole experiment.

use std::path::PathBuf;

use blip2::{Blip2CaptionConfig, InitConfig};
use blip2_data::annotations::{Format, OnError};
use blip2_data::batch::CaptionChoice;
use blip2_data::cleaning::CaptionCleaning;
use blip2_data::transforms::{AugmentationConfig, ImageProcessorConfig};
use blip2_eval::Metric;
use blip2_lm::{GenerationConfig, OptConfig};
use blip2_vision::VisionConfig;
use serde::{Deserialize, Serialize};

use crate::features::FeaturesConfig;

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// A captioner: the table `[model]`.
    Caption,
    /// A language model on captions alone: the table `[language_model]`.
    LanguageModel,
    /// An image encoder on what lies in each patch: the table `[patch_classification]`.
    PatchClassification,
}

/// A complete experiment; see `configs/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What is trained.
    pub task: TaskKind,
    /// Seeds initial weights, data order, dropout and the built-in data set.
    pub seed: u64,
    /// The captioner, for the task `caption`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Blip2CaptionConfig>,
    /// The language model, for the task `language_model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_model: Option<LanguageModelConfig>,
    /// The image encoder, for the task `patch_classification`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch_classification: Option<PatchClassificationConfig>,
    /// Where the data lie and how they are read.
    pub data: DataConfig,
    /// Computes a frozen image encoder's embeddings once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeaturesConfig>,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time.
    pub schedule: ScheduleConfig,
    /// Epochs, batches, checkpoints.
    pub train: TrainConfig,
    /// Validation after each epoch and the tests at the end, for the task `caption`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationConfig>,
}

/// Task `language_model`: OPT and its byte-level BPE tokenizer on the captions of the train split.
///
/// One document holds the captions of one image, each with its own BOS: that is the layout in
/// which a captioner presents text to the language model, and it teaches the model to take the
/// content of a caption from what stands before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageModelConfig {
    /// Tokens of the tokenizer, the special ones included.
    pub tokenizer_vocab_size: usize,
    /// The architecture; `vocab_size` must be at least the tokenizer's.
    pub architecture: OptConfig,
    /// Tokens a document is cut to.
    pub max_length: usize,
    /// Where the finished tower is written.
    pub export: PathBuf,
}

/// Task `patch_classification`: each patch names the object that covers it, or the background.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchClassificationConfig {
    /// The image encoder.
    pub architecture: VisionConfig,
    /// How images become tensors.
    pub data_preprocessor: ImageProcessorConfig,
    /// COCO instances of the train split.
    pub train_instances: PathBuf,
    /// COCO instances of the validation split.
    pub val_instances: PathBuf,
    /// The weight of background patches in the loss; object patches weigh 1.
    pub background_weight: f64,
    /// Where the finished tower is written.
    pub export: PathBuf,
}

/// Where the data lie and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// `fail` at the first image or annotation that can't be used, or `skip`, count and list it.
    #[serde(default = "fail")]
    pub on_error: OnError,
    /// Threads that read ahead.
    pub num_workers: usize,
    /// Which captions of an image an epoch shows.
    pub captions: CaptionChoice,
    /// How captions are cleaned before they are learned; without it they are learned as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_cleaning: Option<CaptionCleaning>,
    /// How images of the train split vary; without it they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<AugmentationConfig>,
    /// The images to learn from.
    pub train: SplitConfig,
    /// The images that choose the best checkpoint.
    pub val: SplitConfig,
    /// The images of the final scores, each split with its `name`.
    #[serde(default)]
    pub test: Vec<SplitConfig>,
    /// Makes the built-in data set in this folder if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emoji_scenes: Option<PathBuf>,
}

fn fail() -> OnError {
    OnError::Fail
}

/// One split: an annotation file and an image folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// The split's name in scores and reports; needed for test splits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// COCO captions JSON, Karpathy JSON or JSONL.
    pub annotations: PathBuf,
    /// The folder that file names are relative to.
    pub images: PathBuf,
    /// The format, where it can't be told from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Uses the first so many images alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The split inside a Karpathy file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

/// AdamW. Norms, biases and other one-dimensional parameters are not decayed, unless `decay_1d`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The decay rates of the moments.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Decays one-dimensional parameters too, as mmengine does without `paramwise_cfg`.
    #[serde(default)]
    pub decay_1d: bool,
    /// How much slower each layer of a trained image encoder learns than the one after it: 1 for
    /// no difference. LAVIS's `lr_layer_decay`.
    #[serde(default = "unscaled")]
    pub lr_layer_decay: f64,
    /// Scales gradients down to this global norm; none leaves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_grad_norm: Option<f64>,
}

fn unscaled() -> f64 {
    1.0
}

/// Linear warm-up from `warmup_lr` to `lr`, then down to `min_lr`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// What follows the warm-up.
    #[serde(default)]
    pub kind: ScheduleKind,
    /// Changes the rate between epochs alone, as LAVIS and mmpretrain do; the warm-up then lies in
    /// the first epoch.
    #[serde(default)]
    pub per_epoch: bool,
    /// For the kind `step`: what the rate is multiplied by after each epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_rate: Option<f64>,
    /// The highest learning rate.
    pub lr: f64,
    /// The last learning rate.
    pub min_lr: f64,
    /// The first learning rate.
    pub warmup_lr: f64,
    /// Optimizer steps of warm-up.
    pub warmup_steps: usize,
}

/// The course of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// A half cosine to `min_lr` at the end.
    #[default]
    Cosine,
    /// `decay_rate` after each epoch, not below `min_lr`.
    Step,
    /// Stays at `lr`.
    Constant,
}

/// Epochs, batches, checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the train split; 0 only evaluates.
    pub epochs: usize,
    /// Images (or documents) a batch.
    pub batch_size: usize,
    /// Leaves out the last batch of an epoch if it is not full.
    #[serde(default)]
    pub drop_last: bool,
    /// Batches an optimizer step.
    #[serde(default = "one")]
    pub accumulation: usize,
    /// A checkpoint every so many optimizer steps, besides the one after each epoch; 0 for none.
    #[serde(default)]
    pub checkpoint_every: usize,
    /// Newest checkpoints that are kept.
    #[serde(default = "one")]
    pub keep_last: usize,
    /// Checkpoints with the best validation scores that are kept besides.
    #[serde(default = "one")]
    pub keep_best: usize,
    /// Writes TensorBoard's event files to the run's folder `tensorboard`, too.
    #[serde(default)]
    pub tensorboard: bool,
    /// Keeps an exponential moving average of the trained weights with this decay, which is what
    /// is validated, scored and exported; none leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f64>,
    /// Steps without a finite loss and gradient are left out; so many in a row end the run.
    #[serde(default = "five")]
    pub max_non_finite: usize,
}

fn one() -> usize {
    1
}

fn five() -> usize {
    5
}

/// Validation after each epoch, tests at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Images a batch.
    pub batch_size: usize,
    /// Validation images that are captioned after each epoch; 0 for all.
    pub val_captions: usize,
    /// What is computed of them; the best checkpoint is chosen by CIDEr.
    #[serde(default = "cider", with = "metric_names")]
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

/// Metrics by their names.
mod metric_names {
    use blip2_eval::Metric;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(metrics: &[Metric], to: S) -> Result<S::Ok, S::Error> {
        let names = metrics.iter().map(|metric| match metric {
            Metric::Bleu => "BLEU",
            Metric::Meteor => "METEOR",
            Metric::RougeL => "ROUGE_L",
            Metric::Cider => "CIDEr",
            Metric::CiderD => "CIDErD",
            Metric::Spice => "SPICE",
        });
        names.collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Metric>, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        let metrics = names
            .iter()
            .map(|name| name.parse().map_err(D::Error::custom));
        metrics.collect()
    }
}

impl Recipe {
    /// Checks what the parts can't check alone.
    ///
    /// # Errors
    ///
    /// A message that names the field.
    pub fn validate(&self) -> Result<(), String> {
        let tables = [
            (TaskKind::Caption, "model", self.model.is_some()),
            (
                TaskKind::LanguageModel,
                "language_model",
                self.language_model.is_some(),
            ),
            (
                TaskKind::PatchClassification,
                "patch_classification",
                self.patch_classification.is_some(),
            ),
        ];
        for (task, table, present) in tables {
            match (task == self.task, present) {
                (true, false) => return Err(format!("the table `[{table}]` is missing")),
                (false, true) => {
                    return Err(format!(
                        "the table `[{table}]` does not belong to this task"
                    ));
                }
                _ => {}
            }
        }
        if self.task != TaskKind::Caption
            && (self.features.is_some() || self.data.augmentation.is_some())
        {
            return Err("`features` and `data.augmentation` belong to the task caption".into());
        }
        if let Some(features) = &self.features
            && self.data.augmentation.is_none()
            && features.views > 1
        {
            return Err(
                "field `features.views`: without `data.augmentation` all views of an \
                        image are the same; leave it at 1"
                    .into(),
            );
        }
        if self.task == TaskKind::Caption && self.evaluation.is_none() {
            return Err("the table `[evaluation]` is missing".into());
        }
        for (index, split) in self.data.test.iter().enumerate() {
            if split.name.is_none() {
                return Err(format!("field `data.test[{index}].name` is missing"));
            }
        }
        let positive = [
            ("train.batch_size", self.train.batch_size),
            ("train.accumulation", self.train.accumulation),
            ("train.keep_last", self.train.keep_last),
            ("train.keep_best", self.train.keep_best),
            ("train.max_non_finite", self.train.max_non_finite),
            (
                "features.views",
                self.features.as_ref().map_or(1, |features| features.views),
            ),
            (
                "evaluation.batch_size",
                self.evaluation.as_ref().map_or(1, |eval| eval.batch_size),
            ),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(format!("field `{field}` must be at least 1"));
            }
        }
        let schedule = &self.schedule;
        for (field, value) in [
            ("schedule.lr", schedule.lr),
            ("schedule.min_lr", schedule.min_lr),
            ("schedule.warmup_lr", schedule.warmup_lr),
            ("optimizer.eps", f64::from(self.optimizer.eps)),
            (
                "optimizer.weight_decay",
                f64::from(self.optimizer.weight_decay),
            ),
            (
                "optimizer.clip_grad_norm",
                self.optimizer.clip_grad_norm.unwrap_or(0.0),
            ),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!("field `{field}` is {value}; it must be 0 or more"));
            }
        }
        for (field, value) in [
            (
                "optimizer.lr_layer_decay",
                Some(self.optimizer.lr_layer_decay),
            ),
            ("schedule.decay_rate", schedule.decay_rate),
            ("train.ema_decay", self.train.ema_decay),
        ] {
            if value.is_some_and(|value| !(value > 0.0 && value <= 1.0)) {
                return Err(format!("field `{field}` must be above 0 and at most 1"));
            }
        }
        if (schedule.kind == ScheduleKind::Step) != schedule.decay_rate.is_some() {
            return Err("field `schedule.decay_rate` belongs to `schedule.kind = \"step\"`".into());
        }
        if let Some(evaluation) = &self.evaluation {
            evaluation.validate()?;
        }
        for beta in self.optimizer.betas {
            if !(0.0..1.0).contains(&beta) {
                return Err(format!("field `optimizer.betas`: {beta} is not in [0, 1)"));
            }
        }
        Ok(())
    }

    /// The checkpoint that the trained parts start from, if any.
    pub fn init_cfg(&self) -> Option<&InitConfig> {
        self.model.as_ref()?.init_cfg.as_ref()
    }
}

impl EvaluationConfig {
    fn validate(&self) -> Result<(), String> {
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
