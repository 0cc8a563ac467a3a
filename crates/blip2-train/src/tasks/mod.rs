//! What can be trained: each task is a model with a loss over its own batches.

mod caption;
mod language;
mod output;
mod patches;
mod stage1;

use blip2::Blip2Error;
use blip2_data::DataError;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn_train::{InferenceStep, LearnerModel, TrainOutput, TrainStep};

pub use caption::CaptionTask;
pub use language::{DocumentBatch, DocumentSource, LanguageTask};
pub use output::{ScoreInput, ScoreMetric, StepOutput};
pub use patches::{PatchBatch, PatchSource, PatchTask};
pub use stage1::Stage1Task;

/// What one batch gives: a loss to minimise, and numbers to report.
#[derive(Debug)]
pub struct TaskLoss {
    /// `[1]`.
    pub loss: Tensor<1>,
    /// What the loss is a mean of: tokens or patches.
    pub count: usize,
    /// The fraction of correct predictions, where the task has it.
    pub accuracy: Option<f64>,
    /// What `loss` is the sum of, by name, where it is a sum.
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

/// A forward and backward pass that the device may still be busy with.
#[derive(Debug)]
pub struct Started {
    /// By parameter.
    pub grads: GradientsParams,
    /// The loss.
    pub loss: TaskLoss,
    /// Images or documents.
    pub items: usize,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The model can't use the batch.
    #[error(transparent)]
    Model(#[from] Blip2Error),
    /// The data can't be read.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// A trainable task; Burn's `TrainStep` and `InferenceStep` follow from [`task_loss`](Self::task_loss).
pub trait Task:
    LearnerModel
    + TrainStep<Input = Self::Batch, Output = StepOutput>
    + InferenceStep<Input = Self::Batch, Output = StepOutput>
{
    /// One batch of data.
    type Batch: Clone + Send + 'static;

    /// The name of the second validation number beside the loss.
    const SCORE: &'static str;

    /// The number of images or documents of a batch.
    fn batch_len(batch: &Self::Batch) -> usize;

    /// The loss of a batch.
    ///
    /// # Errors
    ///
    /// If the batch can't be used.
    fn task_loss(&self, batch: Self::Batch) -> Result<TaskLoss, TaskError>;

    /// The first tensor between `batch` and the loss that is not finite, by name; none if it is
    /// not known.
    fn first_non_finite(&self, _batch: Self::Batch) -> Option<String> {
        None
    }

    /// The blocks of the image encoder, where there is one that learns with other parts.
    fn trained_vision_layers(&self) -> Option<usize> {
        None
    }

    /// Forward and backward pass.
    ///
    /// # Errors
    ///
    /// As [`task_loss`](Self::task_loss).
    fn train_batch(&self, batch: Self::Batch) -> Result<TrainOutput<StepOutput>, TaskError> {
        let started = self.start_batch(batch)?;
        Ok(TrainOutput {
            grads: started.grads,
            item: StepOutput::new(started.loss, started.items),
        })
    }

    /// As [`train_batch`](Self::train_batch), without waiting for the device.
    ///
    /// # Errors
    ///
    /// As [`task_loss`](Self::task_loss).
    fn start_batch(&self, batch: Self::Batch) -> Result<Started, TaskError> {
        let items = Self::batch_len(&batch);
        let loss = self.task_loss(batch)?;
        let grads = GradientsParams::from_grads(loss.loss.backward(), self);
        Ok(Started { grads, loss, items })
    }

    /// Forward pass alone.
    ///
    /// # Errors
    ///
    /// As [`task_loss`](Self::task_loss).
    fn valid_batch(&self, batch: Self::Batch) -> Result<StepOutput, TaskError> {
        let items = Self::batch_len(&batch);
        Ok(StepOutput::new(self.task_loss(batch)?, items))
    }
}

/// The two step traits of Burn's learner for a task. They can't return errors; the training loop
/// calls [`Task::train_batch`] and [`Task::valid_batch`], which can.
macro_rules! impl_steps {
    ($task:ty) => {
        impl burn_train::TrainStep for $task {
            type Input = <$task as $crate::tasks::Task>::Batch;
            type Output = $crate::tasks::StepOutput;

            fn step(&self, batch: Self::Input) -> burn_train::TrainOutput<Self::Output> {
                self.train_batch(batch).expect("the loop uses train_batch")
            }
        }

        impl burn_train::InferenceStep for $task {
            type Input = <$task as $crate::tasks::Task>::Batch;
            type Output = $crate::tasks::StepOutput;

            fn step(&self, batch: Self::Input) -> Self::Output {
                self.valid_batch(batch).expect("the loop uses valid_batch")
            }
        }
    };
}
pub(crate) use impl_steps;
