//! The training loop, as a learning strategy of Burn's `SupervisedTraining`.
//!
//! Burn's own single-device strategy saves once an epoch and forgets the position in the data. This
//! one uses the same learner, events and dashboard, and adds checkpoints at any step, a stop on
//! Ctrl-C that loses nothing, scores from generated captions, and errors instead of panics.

use std::sync::Mutex;
use std::time::Instant;

use blip2_data::loader::{BatchSource, Position, PrefetchLoader};
use burn::data::dataloader::{DataLoader, Progress};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use burn_train::metric::store::EventStoreClient;
use burn_train::{
    EventProcessorTraining, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};

use super::checkpoint::{self, Best, Capture, State};
use super::{MetricsFile, Record, RunFolder, StopSignal};
use crate::RunError;
use crate::optim::{clip_grad_norm, scale_grads};
use crate::recipe::Recipe;
use crate::tasks::{StepOutput, Task};

/// Scores the validation split after an epoch; higher is better.
pub type ScoreHook<T> = Box<dyn Fn(&T, usize) -> Result<f64, RunError>>;

/// How a run's training ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The state of the last checkpoint or step.
    pub state: State,
    /// Whether it was asked to stop before the last epoch.
    pub interrupted: bool,
}

/// The loop of one run.
pub struct TrainLoop<T: Task, S: BatchSource<Batch = T::Batch>> {
    /// The run's folder.
    pub folder: RunFolder,
    /// The recipe.
    pub recipe: Recipe,
    /// Where the model trains.
    pub device: Device,
    /// The train split; the same loader that the learner was given.
    pub train: PrefetchLoader<S>,
    /// Where to start.
    pub start: State,
    /// Asked to stop?
    pub stop: StopSignal,
    /// How an epoch is scored; without it the mean accuracy counts.
    pub score: Option<ScoreHook<T>>,
    /// How the training ended; set by [`fit`](SupervisedLearningStrategy::fit).
    pub outcome: Mutex<Option<Result<Outcome, RunError>>>,
}

/// What one `fit` carries from step to step.
struct Fit<'a, T: Task, S: BatchSource<Batch = T::Batch>> {
    run: &'a TrainLoop<T, S>,
    learner: Learner<T>,
    events: SupervisedTrainingEventProcessor<T>,
    store: std::sync::Arc<EventStoreClient>,
    capture: Capture<T>,
    metrics: MetricsFile,
    state: State,
}

impl<T, S> SupervisedLearningStrategy<T> for TrainLoop<T, S>
where
    T: Task,
    S: BatchSource<Batch = T::Batch>,
{
    fn fit(
        &self,
        components: TrainingComponents<T>,
        learner: Learner<T>,
        _train: TrainLoader<T>,
        valid: ValidLoader<T>,
        _starting_epoch: usize,
    ) -> (T, SupervisedTrainingEventProcessor<T>) {
        let interrupter = components.interrupter.clone();
        let (learner, events, result) =
            match MetricsFile::open(&self.folder.metrics(), self.start.step) {
                Ok(metrics) => {
                    let mut fit = Fit {
                        run: self,
                        learner,
                        events: components.event_processor,
                        store: components.event_store,
                        capture: Capture::new(&interrupter),
                        metrics,
                        state: self.start.clone(),
                    };
                    let result = fit.epochs(&valid, &|| {
                        if interrupter.should_stop() {
                            // The dashboard's own way to stop.
                            self.stop.request();
                        }
                        self.stop.requested()
                    });
                    let result = result.map(|interrupted| Outcome {
                        state: fit.state,
                        interrupted,
                    });
                    (fit.learner, fit.events, result)
                }
                Err(error) => (learner, components.event_processor, Err(error)),
            };
        if !matches!(&result, Ok(outcome) if !outcome.interrupted) {
            interrupter.stop(Some("see the message below"));
        }
        *self
            .outcome
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
        (learner.model(), events)
    }
}

impl<T, S> Fit<'_, T, S>
where
    T: Task,
    S: BatchSource<Batch = T::Batch>,
{
    /// Trains to the last epoch; true if it was asked to stop before.
    fn epochs(
        &mut self,
        valid: &ValidLoader<T>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<bool, RunError> {
        for epoch in self.state.epoch..=self.run.recipe.train.epochs {
            self.train_event(LearnerEvent::StartSplit {
                epoch_number: epoch,
                total_items: self.run.train.num_items(),
            })?;
            if self.train_epoch(epoch, should_stop)? {
                self.train_event(LearnerEvent::EndSplit(epoch))?;
                self.checkpoint()?;
                return Ok(true);
            }
            self.train_event(LearnerEvent::EndSplit(epoch))?;

            self.valid_event(LearnerEvent::StartSplit {
                epoch_number: epoch,
                total_items: valid.num_items(),
            })?;
            let score = self.validate(epoch, valid, should_stop)?;
            self.valid_event(LearnerEvent::EndSplit(epoch))?;
            let Some(score) = score else {
                self.checkpoint()?;
                return Ok(true);
            };
            self.train_event(LearnerEvent::EndEpoch(epoch))?;

            let step = self.state.step;
            if self.state.best.is_none_or(|best| score > best.score) {
                self.state.best = Some(Best { step, score });
            }
            self.state.score = Some(score);
            self.state.epoch = epoch + 1;
            self.state.batch = 0;
            self.checkpoint()?;
        }
        Ok(false)
    }

    /// The rest of an epoch's batches; true if it was asked to stop.
    fn train_epoch(
        &mut self,
        epoch: usize,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<bool, RunError> {
        let run = self.run;
        let config = &run.recipe.train;
        let loader = run.train.clone();
        loader.seek(Position {
            epoch,
            batch: self.state.batch,
        });
        self.state.score = None;
        let total = loader.num_batches();
        let mut batches = loader.iter();
        let mut accumulator = GradientsAccumulator::new();
        let mut pending: Vec<StepOutput> = Vec::new();
        let mut started = Instant::now();
        while self.state.batch < total {
            if pending.is_empty() {
                if should_stop() {
                    return Ok(true);
                }
                // Dropout depends on (seed, step) alone, so a resumed run draws the same.
                run.device.seed(mix(run.recipe.seed, self.state.step));
            }
            let Some(batch) = batches.next() else { break };
            let batch = batch.map_err(|error| RunError::Training(error.to_string()))?;
            let model = self.learner.model();
            let output = model
                .train_batch(batch)
                .map_err(|error| RunError::Training(error.to_string()))?;
            if !output.item.loss.is_finite() {
                return Err(RunError::Training(format!(
                    "the loss of step {} is {}; the checkpoints before it are kept",
                    self.state.step + 1,
                    output.item.loss
                )));
            }
            pending.push(output.item);
            self.state.batch += 1;
            let due = pending.len() == config.accumulation || self.state.batch == total;
            let grads = if config.accumulation == 1 {
                output.grads
            } else {
                accumulator.accumulate(&model, output.grads);
                if !due {
                    continue;
                }
                scale_grads(&model, accumulator.grads(), 1.0 / pending.len() as f64)
            };
            let outputs = std::mem::take(&mut pending);
            self.optimizer_step(
                epoch,
                &model,
                grads,
                outputs,
                batches.progress(),
                &mut started,
            )?;
        }
        Ok(false)
    }

    fn optimizer_step(
        &mut self,
        epoch: usize,
        model: &T,
        grads: GradientsParams,
        outputs: Vec<StepOutput>,
        progress: Progress,
        started: &mut Instant,
    ) -> Result<(), RunError> {
        let recipe = &self.run.recipe;
        let (grads, grad_norm) = clip_grad_norm(model, grads, recipe.optimizer.clip_grad_norm);
        self.learner.lr_step();
        self.learner.optimizer_step(grads);
        self.state.step += 1;
        // By now the dashboard's thread has set the terminal up.
        self.run.stop.keep_ctrl_c();

        let items: usize = outputs.iter().map(|output| output.items).sum();
        let seconds = started.elapsed().as_secs_f64();
        *started = Instant::now();
        let lr = self.learner.lr_current();
        self.metrics.append(&Record::Train {
            step: self.state.step,
            epoch,
            loss: mean_loss(&outputs),
            lr: lr.base(),
            grad_norm,
            items,
            items_per_s: items as f64 / seconds.max(1e-9),
        })?;
        for output in outputs {
            let item = TrainingItem::new(
                output,
                progress.clone(),
                Some(self.state.step),
                Some(lr.clone()),
            );
            self.train_event(LearnerEvent::ProcessedItem(item))?;
        }
        let every = recipe.train.checkpoint_every;
        if every > 0 && self.state.step.is_multiple_of(every) {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// The validation score, or none if it was asked to stop.
    fn validate(
        &mut self,
        epoch: usize,
        valid: &ValidLoader<T>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Option<f64>, RunError> {
        let started = Instant::now();
        let model = self.learner.model().valid();
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
        let score = match &self.run.score {
            Some(hook) => match hook(&model, epoch) {
                Ok(score) => score,
                Err(RunError::Interrupted { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
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
            metric: T::SCORE.to_string(),
            score,
            seconds: started.elapsed().as_secs_f64(),
        })?;
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

    /// Saves the state. A full disk must not end a run that can go on: the old checkpoints stay.
    fn checkpoint(&mut self) -> Result<(), RunError> {
        let captured = self
            .capture
            .take(&self.learner, self.state.step, &self.store)?;
        let keep_last = self.run.recipe.train.keep_last;
        if let Err(error) =
            checkpoint::write(&self.run.folder, captured, self.state.clone(), keep_last)
        {
            tracing::error!(
                "the checkpoint of step {} is not saved: {error}",
                self.state.step
            );
        }
        Ok(())
    }

    fn train_event(&mut self, event: LearnerEvent<StepOutput>) -> Result<(), RunError> {
        self.events
            .process_train(event)
            .map_err(|error| RunError::Training(error.to_string()))
    }

    fn valid_event(&mut self, event: LearnerEvent<StepOutput>) -> Result<(), RunError> {
        self.events
            .process_valid(event)
            .map_err(|error| RunError::Training(error.to_string()))
    }
}

fn mean_loss(outputs: &[StepOutput]) -> f64 {
    let count: usize = outputs.iter().map(|output| output.count).sum();
    let sum: f64 = outputs
        .iter()
        .map(|output| output.loss * output.count as f64)
        .sum();
    sum / count.max(1) as f64
}

fn mean_accuracy(outputs: &[StepOutput]) -> f64 {
    let accuracies: Vec<f64> = outputs
        .iter()
        .filter_map(|output| output.accuracy)
        .collect();
    accuracies.iter().sum::<f64>() / accuracies.len().max(1) as f64
}

/// One seed out of two numbers (the finalizer of SplitMix64).
fn mix(seed: u64, step: usize) -> u64 {
    let mut mixed = seed ^ (step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
