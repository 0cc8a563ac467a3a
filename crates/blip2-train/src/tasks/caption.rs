//! The captioner as a task.

use blip2::Blip2Caption;
use blip2_data::batch::CaptionBatch;
use burn::module::Module;

use super::{Task, TaskError, TaskLoss, impl_steps};

/// [`Blip2Caption`] with its caption cross-entropy. A module of its own, so that Burn's learner
/// traits stay out of the model's crate; parameter paths start with `model`.
#[derive(Module, Debug)]
pub struct CaptionTask {
    /// The captioner.
    pub model: Blip2Caption,
}

impl Task for CaptionTask {
    type Batch = CaptionBatch;

    const SCORE: &'static str = "CIDEr";

    fn batch_len(batch: &CaptionBatch) -> usize {
        batch.samples.len()
    }

    fn task_loss(&self, batch: CaptionBatch) -> Result<TaskLoss, TaskError> {
        let losses = self.model.loss(batch.images, &batch.samples)?;
        Ok(TaskLoss {
            loss: losses.loss,
            count: losses.tokens,
            accuracy: None,
        })
    }
}

impl_steps!(CaptionTask);
