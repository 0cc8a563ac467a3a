//! The tables `[optimizer]`, `[schedule]` and `[train]`.

use serde::{Deserialize, Serialize};

/// AdamW. Norms, biases and other one-dimensional parameters are not decayed, unless `decay_1d`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The decay rates of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
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
    /// Where it trains, as `--device` names it; several share each batch. Without any, the device that
    /// the command line names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
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
    #[serde(default = "two")]
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

/// Should the newest turn out damaged, there is one before it.
fn two() -> usize {
    2
}

fn five() -> usize {
    5
}
