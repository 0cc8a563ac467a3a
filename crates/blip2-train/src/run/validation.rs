//! What the loop measures besides the training loss: validation after an epoch, sample captions.

use std::time::Instant;

use blip2_data::loader::BatchSource;
use burn::data::dataloader::Progress;
use burn_train::{LearnerEvent, TrainingItem, ValidLoader};

use super::Record;
use super::strategy::{Fit, mean_loss, mean_parts};
use crate::RunError;
use crate::tasks::{StepOutput, Task};

impl<T, S> Fit<'_, T, S>
where
    T: Task,
    S: BatchSource<Batch = Vec<T::Batch>>,
{
    /// The model that is judged: the average of the weights, if there is one.
    fn evaluated(&self) -> T {
        match &self.average {
            Some(average) => average.model().clone(),
            None => self.learner.model().valid(),
        }
    }

    /// Writes what the model makes of the sample images to the metrics, when it is time.
    pub(super) fn samples(&mut self) -> Result<(), RunError> {
        let (Some(watch), Some(evaluation)) = (&self.run.watch, &self.run.recipe.evaluation) else {
            return Ok(());
        };
        let every = evaluation.sample_every;
        if every == 0 || evaluation.sample_captions == 0 || !self.state.step.is_multiple_of(every) {
            return Ok(());
        }
        let captions = match watch.samples(&self.evaluated()) {
            Ok(captions) => captions,
            // The loop stops by itself before the next step.
            Err(RunError::Interrupted { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.metrics.append(&Record::Samples {
            step: self.state.step,
            epoch: self.state.epoch,
            captions,
        });
        Ok(())
    }

    /// The validation score, or none if it was asked to stop.
    pub(super) fn validate(
        &mut self,
        epoch: usize,
        valid: &ValidLoader<T>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Option<f64>, RunError> {
        let started = Instant::now();
        let model = self.evaluated();
        let mut outputs = Vec::new();
        let mut batches = valid.iter();
        let mut last = None;
        while let Some(batch) = batches.next() {
            if should_stop() {
                return Ok(None);
            }
            let batch = batch.map_err(|error| RunError::Training(error.to_string()))?;
            let output = model
                .valid_batch(batch)
                .map_err(|error| RunError::Training(error.to_string()))?;
            outputs.push(output.clone());
            if let Some((output, progress)) = last.replace((output, batches.progress())) {
                self.valid_item(output, progress, outputs.len() - 1)?;
            }
        }
        let scores = match &self.run.watch {
            Some(watch) => match watch.scores(&model, epoch) {
                Ok(scores) => Some(scores),
                Err(RunError::Interrupted { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
            None => None,
        };
        let score = match &scores {
            Some(scores) => scores.best_by,
            None => mean_accuracy(&outputs),
        };
        // The dashboard gets the score with the last item.
        if let Some((mut output, progress)) = last {
            output.score = Some(score);
            self.valid_item(output, progress, outputs.len())?;
        }
        self.metrics.append(&Record::Valid {
            step: self.state.step,
            epoch,
            loss: mean_loss(&outputs),
            losses: mean_parts(&outputs),
            metric: T::SCORE.to_string(),
            score,
            scores: scores.map(|scores| scores.all).unwrap_or_default(),
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(Some(score))
    }

    fn valid_item(
        &mut self,
        output: StepOutput,
        progress: Progress,
        iteration: usize,
    ) -> Result<(), RunError> {
        let item = TrainingItem::new(output, progress, Some(iteration), None);
        self.valid_event(LearnerEvent::ProcessedItem(item))
    }
}

fn mean_accuracy(outputs: &[StepOutput]) -> f64 {
    let accuracies: Vec<f64> = outputs
        .iter()
        .filter_map(|output| output.accuracy)
        .collect();
    accuracies.iter().sum::<f64>() / accuracies.len().max(1) as f64
}
