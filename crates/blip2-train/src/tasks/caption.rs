//! The captioner as a task.

use blip2::Blip2Caption;
use blip2_data::ImageInput;
use blip2_data::batch::CaptionBatch;
use burn::module::Module;

use super::{Task, TaskError, TaskLoss, impl_steps};
use crate::run::is_finite;

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
            parts: Vec::new(),
            loss: losses.loss,
            count: losses.tokens,
            accuracy: None,
        })
    }

    fn first_non_finite(&self, batch: CaptionBatch) -> Option<String> {
        if let ImageInput::Pixels(images) = &batch.images
            && !is_finite(images.clone())
        {
            return Some("images".into());
        }
        let mut first = None;
        let traced = self
            .model
            .trace(batch.images, &batch.samples, &mut |name, tensor| {
                if first.is_none() && !is_finite(tensor.clone()) {
                    first = Some(name.to_string());
                }
            });
        // A batch that can't be traced had no loss either.
        traced.ok().and(first)
    }

    fn trained_vision_layers(&self) -> Option<usize> {
        let layers = self.model.architecture().vision.num_hidden_layers;
        (!self.model.vision_backbone.is_frozen()).then_some(layers)
    }
}

impl_steps!(CaptionTask);
