//! Stage 1 as a task.

use blip2::stage1::{Blip2Qformer, Negatives};
use blip2_data::batch::CaptionBatch;
use burn::module::Module;

use super::{Task, TaskError, TaskLoss, impl_steps};

/// [`Blip2Qformer`] with its three losses. Parameter paths start with `model`.
#[derive(Module, Debug)]
pub struct Stage1Task {
    /// The model.
    pub model: Blip2Qformer,
}

impl Task for Stage1Task {
    type Batch = CaptionBatch;

    const SCORE: &'static str = "r_mean";

    fn batch_len(batch: &CaptionBatch) -> usize {
        batch.samples.len()
    }

    fn task_loss(&self, batch: CaptionBatch) -> Result<TaskLoss, TaskError> {
        // Validation must not depend on what was drawn before it.
        let negatives = match self.model.heads.temp.val().is_autodiff() {
            true => Negatives::Sampled,
            false => Negatives::Hardest,
        };
        let losses = self.model.loss(batch.images, &batch.samples, &negatives)?;
        Ok(TaskLoss {
            loss: losses.loss,
            count: losses.pairs,
            accuracy: None,
            parts: vec![
                ("loss_itc", losses.loss_itc),
                ("loss_itm", losses.loss_itm),
                ("loss_lm", losses.loss_lm),
            ],
        })
    }

    fn trained_vision_layers(&self) -> Option<usize> {
        let layers = self.model.architecture().vision.num_hidden_layers;
        (!self.model.vision_backbone.is_frozen()).then_some(layers)
    }
}

impl_steps!(Stage1Task);
