//! The recipe: one TOML file tells one whole experiment.

mod data;
mod evaluation;
mod optimization;
mod stream;

use std::path::PathBuf;

use blip2::stage1::Blip2QformerConfig;
use blip2::{Blip2CaptionConfig, Blip2Error, InitConfig};
use blip2_data::transforms::ImageProcessorConfig;
use blip2_lm::OptConfig;
use blip2_vision::VisionConfig;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

pub use data::{DataConfig, SplitConfig};
pub use evaluation::{EvaluationConfig, RetrievalConfig};
pub use optimization::{OptimizerConfig, ScheduleConfig, ScheduleKind, TrainConfig};
pub use stream::{ShardPatterns, StreamConfig, StreamSourceConfig};

use crate::features::FeaturesConfig;

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// A captioner: the table `[model]`.
    Caption,
    /// The Q-Former's own pre-training, or its fine-tuning for retrieval: the table `[stage1]`.
    Stage1,
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
    /// The model of stage 1, for the task `stage1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage1: Option<Blip2QformerConfig>,
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
    /// Validation after each epoch and the tests at the end, for the task `stage1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<RetrievalConfig>,
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

impl Recipe {
    /// The same recipe with `precision` said as `device` has it.
    ///
    /// # Errors
    ///
    /// Names a field of the model that is wrong.
    pub fn on(mut self, device: &Device) -> Result<Self, Blip2Error> {
        if let Some(model) = &mut self.model {
            *model = model.resolved(device)?;
        }
        if let Some(stage1) = &mut self.stage1 {
            *stage1 = stage1.resolved(device)?;
        }
        Ok(self)
    }

    /// Checks what the parts can't check alone.
    ///
    /// # Errors
    ///
    /// A message that names the field.
    pub fn validate(&self) -> Result<(), String> {
        let tables = [
            (TaskKind::Caption, "model", self.model.is_some()),
            (TaskKind::Caption, "evaluation", self.evaluation.is_some()),
            (TaskKind::Stage1, "stage1", self.stage1.is_some()),
            (TaskKind::Stage1, "retrieval", self.retrieval.is_some()),
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
        if !matches!(self.task, TaskKind::Caption | TaskKind::Stage1)
            && (self.features.is_some() || self.data.augmentation.is_some())
        {
            return Err(
                "`features` and `data.augmentation` belong to the tasks caption and stage1".into(),
            );
        }
        self.validate_train_data()?;
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
            (
                "retrieval.batch_size",
                self.retrieval.as_ref().map_or(1, |eval| eval.batch_size),
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
            ("optimizer.eps", self.optimizer.eps),
            ("optimizer.weight_decay", self.optimizer.weight_decay),
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

    /// Either a split or a stream, where a stream can be used.
    fn validate_train_data(&self) -> Result<(), String> {
        let stream = match (&self.data.train, &self.data.stream) {
            (Some(_), None) => return Ok(()),
            (None, Some(stream)) => stream,
            (None, None) => {
                return Err("the table `[data.train]` is missing (or `[data.stream]`)".into());
            }
            (Some(_), Some(_)) => {
                return Err(
                    "the tables `[data.train]` and `[data.stream]` don't go together; \
                            leave one out"
                        .into(),
                );
            }
        };
        if matches!(
            self.task,
            TaskKind::LanguageModel | TaskKind::PatchClassification
        ) {
            return Err("the table `[data.stream]` does not belong to this task".into());
        }
        if self.features.is_some() {
            return Err(
                "the table `[features]` does not go with `[data.stream]`: a stream is never \
                        listed, so there is nothing to compute features of before the first step"
                    .into(),
            );
        }
        if self.train.batch_size == 0 {
            return Err("field `train.batch_size` must be at least 1".into());
        }
        stream.validate(&self.train)
    }

    /// The checkpoint that the trained parts start from, if any.
    pub fn init_cfg(&self) -> Option<&InitConfig> {
        match (&self.model, &self.stage1) {
            (Some(model), _) => model.init_cfg.as_ref(),
            (None, Some(model)) => model.init_cfg.as_ref(),
            (None, None) => None,
        }
    }

    /// How images become tensors, in a task on images and captions.
    pub fn processor(&self) -> Option<&ImageProcessorConfig> {
        match (&self.model, &self.stage1) {
            (Some(model), _) => Some(&model.data_preprocessor),
            (None, Some(model)) => Some(&model.data_preprocessor),
            (None, None) => None,
        }
    }
}
