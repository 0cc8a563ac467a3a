//! The training loop, as a learning strategy of Burn's `SupervisedTraining`.
//!
//! Burn's own single-device strategy saves once an epoch and forgets the position in the data. This
//! one uses the same learner, events and dashboard, and adds checkpoints at any step, a stop on
//! Ctrl-C that loses nothing, scores from generated captions, and errors instead of panics.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use blip2_data::loader::{BatchSource, Position, PrefetchLoader};
use burn::data::dataloader::{DataLoader, Progress};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn_train::metric::store::EventStoreClient;
use burn_train::{
    EventProcessorTraining, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};

use super::capture::Capture;
use super::checkpoint::{self, State};
use super::copies::{Copies, Draw, Trained};
use super::events::EventFile;
use super::{Average, MetricsFile, Record, RunFolder, StopSignal, Watch, finite};
use crate::RunError;
use crate::devices::Devices;
use crate::optim::{clip_grads, grad_norm, scale_grads};
use crate::recipe::Recipe;
use crate::tasks::{StepOutput, Task};

/// How a run's training ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The state of the last checkpoint or step.
    pub state: State,
    /// Whether it was asked to stop before the last epoch.
    pub interrupted: bool,
}

/// The loop of one run.
pub struct TrainLoop<T: Task, S: BatchSource<Batch = Vec<T::Batch>>> {
    /// The run's folder.
    pub folder: RunFolder,
    /// The recipe.
    pub recipe: Recipe,
    /// Where the model trains.
    pub devices: Devices,
    /// The train split, each batch with a part for each device.
    pub train: PrefetchLoader<S>,
    /// Where to start.
    pub start: State,
    /// Asked to stop?
    pub stop: StopSignal,
    /// How an epoch is scored; without it the mean accuracy counts.
    pub watch: Option<Box<dyn Watch<T>>>,
    /// The average of the weights up to the start, if the recipe keeps one.
    pub average: Option<Average<T>>,
    /// How the training ended; set by [`fit`](SupervisedLearningStrategy::fit).
    pub outcome: Mutex<Option<Result<Outcome, RunError>>>,
}

/// One optimizer step's numbers.
struct Step {
    epoch: usize,
    /// Of each of its batches.
    outputs: Vec<StepOutput>,
    progress: Progress,
    seconds: f64,
}

/// What one `fit` carries from step to step.
pub(super) struct Fit<'a, T: Task, S: BatchSource<Batch = Vec<T::Batch>>> {
    pub run: &'a TrainLoop<T, S>,
    pub learner: Learner<T>,
    copies: Copies<T>,
    pub average: Option<Average<T>>,
    pub events: SupervisedTrainingEventProcessor<T>,
    pub store: std::sync::Arc<EventStoreClient>,
    pub capture: Capture<T>,
    pub metrics: MetricsFile,
    pub state: State,
}

impl<T, S> SupervisedLearningStrategy<T> for TrainLoop<T, S>
where
    T: Task,
    S: BatchSource<Batch = Vec<T::Batch>>,
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
        let (learner, events, result) = match self.open_metrics() {
            Ok(metrics) => {
                let mut fit = Fit {
                    run: self,
                    copies: Copies::none(&self.devices),
                    learner,
                    average: self.average.clone(),
                    events: components.event_processor,
                    store: components.event_store,
                    capture: Capture::new(&interrupter),
                    metrics,
                    state: self.start.clone(),
                };
                let should_stop = || {
                    if interrupter.should_stop() {
                        // The dashboard's own way to stop.
                        self.stop.request();
                    }
                    self.stop.requested()
                };
                let result = self.devices.guard(|| fit.epochs(&valid, &should_stop));
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

impl<T: Task, S: BatchSource<Batch = Vec<T::Batch>>> TrainLoop<T, S> {
    fn open_metrics(&self) -> Result<MetricsFile, RunError> {
        let metrics = MetricsFile::open(&self.folder.metrics(), self.start.metrics_lines)?;
        if !self.recipe.train.tensorboard {
            return Ok(metrics);
        }
        let folder = self.folder.tensorboard();
        let events = EventFile::create(&folder, self.start.step).map_err(RunError::io(folder))?;
        Ok(metrics.with_events(events))
    }
}

impl<T, S> Fit<'_, T, S>
where
    T: Task,
    S: BatchSource<Batch = Vec<T::Batch>>,
{
    /// Trains to the last epoch; true if it was asked to stop before.
    fn epochs(
        &mut self,
        valid: &ValidLoader<T>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<bool, RunError> {
        self.copies.copy(&self.learner.model());
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

            let best = self.state.best.clone();
            self.state.scored(score, self.run.recipe.train.keep_best);
            self.state.epoch = epoch + 1;
            self.state.batch = 0;
            if !self.checkpoint()? {
                // What is not on disk must not push out what is.
                self.state.best = best;
            }
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
        let mut broken: Option<String> = None;
        let mut started = Instant::now();
        while self.state.batch < total {
            if pending.is_empty() && should_stop() {
                return Ok(true);
            }
            let Some(batch) = batches.next() else { break };
            let batch = batch.map_err(|error| RunError::Training(error.to_string()))?;
            let model = self.learner.model();
            let draw = Draw {
                seed: run.recipe.seed,
                step: self.state.step,
                batch: pending.len(),
            };
            let trained = self.copies.train_batch(&model, batch, draw)?;
            let Trained { output, grads, .. } = trained;
            broken = broken.or(trained.broken);
            pending.push(output);
            self.state.batch += 1;
            let due = pending.len() == config.accumulation || self.state.batch == total;
            let grads = if config.accumulation == 1 {
                grads
            } else {
                accumulator.accumulate(&model, grads);
                if !due {
                    continue;
                }
                scale_grads(&model, accumulator.grads(), 1.0 / pending.len() as f64)
            };
            let step = Step {
                epoch,
                outputs: std::mem::take(&mut pending),
                progress: batches.progress(),
                seconds: started.elapsed().as_secs_f64(),
            };
            started = Instant::now();
            self.optimizer_step(&model, grads, broken.take(), step)?;
        }
        Ok(false)
    }

    fn optimizer_step(
        &mut self,
        model: &T,
        grads: GradientsParams,
        broken: Option<String>,
        step: Step,
    ) -> Result<(), RunError> {
        let recipe = &self.run.recipe;
        let norm = grad_norm(model, &grads);
        let broken = broken.or_else(|| {
            (!norm.is_finite()).then(|| match finite::first_gradient(model, &grads) {
                Some(path) => format!("gradient of {path}"),
                None => "gradient norm".into(),
            })
        });
        // A step that is left out keeps its place in the schedule and in the data.
        self.learner.lr_step();
        self.state.step += 1;
        // By now the dashboard's thread has set the terminal up.
        self.run.stop.keep_ctrl_c();
        if let Some(tensor) = broken {
            self.skip(step.epoch, tensor)?;
        } else {
            let max_norm = recipe.optimizer.clip_grad_norm;
            self.learner
                .optimizer_step(clip_grads(model, grads, norm, max_norm));
            self.copies.follow(&self.learner.model())?;
            self.state.non_finite = 0;
            if let Some(average) = &mut self.average {
                average.update(&self.learner.model());
            }
            self.record(step, norm)?;
        }
        self.samples()?;
        let every = recipe.train.checkpoint_every;
        if every > 0 && self.state.step.is_multiple_of(every) {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Writes a step to the metrics and the dashboard.
    fn record(&mut self, step: Step, grad_norm: f64) -> Result<(), RunError> {
        let items: usize = step.outputs.iter().map(|output| output.items).sum();
        let lr = self.learner.lr_current();
        self.metrics.append(&Record::Train {
            step: self.state.step,
            epoch: step.epoch,
            loss: mean_loss(&step.outputs),
            losses: mean_parts(&step.outputs),
            lr: lr.base(),
            grad_norm,
            items,
            items_per_s: items as f64 / step.seconds.max(1e-9),
        });
        for output in step.outputs {
            let (progress, lr) = (step.progress.clone(), Some(lr.clone()));
            let item = TrainingItem::new(output, progress, Some(self.state.step), lr);
            self.train_event(LearnerEvent::ProcessedItem(item))?;
        }
        Ok(())
    }

    /// Leaves a step out; too many in a row end the run.
    fn skip(&mut self, epoch: usize, tensor: String) -> Result<(), RunError> {
        let step = self.state.step;
        self.state.non_finite += 1;
        tracing::warn!("step {step} is left out: {tensor} is not finite");
        self.metrics.append(&Record::Skipped {
            step,
            epoch,
            tensor: tensor.clone(),
        });
        let in_a_row = self.state.non_finite;
        if in_a_row < self.run.recipe.train.max_non_finite {
            return Ok(());
        }
        Err(RunError::Training(format!(
            "{in_a_row} steps in a row up to step {step} are not finite (last: {tensor}); the \
             checkpoints before them are kept. Lower `schedule.lr`, or look at the data"
        )))
    }

    /// Saves the state; false if it could not. A full disk must not end a run that can go on: the old
    /// checkpoints stay. Nor are weights saved that are not finite: the last good ones stay.
    fn checkpoint(&mut self) -> Result<bool, RunError> {
        if let Some(path) = finite::first_weight(&self.learner.model()) {
            let step = self.state.step;
            tracing::error!("step {step} is not saved: the weight {path} is not finite");
            return Ok(false);
        }
        let mut captured = self
            .capture
            .take(&self.learner, self.state.step, &self.store)?;
        if let Some(average) = &self.average {
            captured = captured.with_average(average.model().clone());
        }
        self.state.metrics_lines = self.metrics.lines();
        self.metrics.sync();
        let keep_last = self.run.recipe.train.keep_last;
        if let Err(error) =
            checkpoint::write(&self.run.folder, captured, self.state.clone(), keep_last)
        {
            tracing::error!(
                "the checkpoint of step {} is not saved: {error}",
                self.state.step
            );
            return Ok(false);
        }
        Ok(true)
    }

    fn train_event(&mut self, event: LearnerEvent<StepOutput>) -> Result<(), RunError> {
        self.events
            .process_train(event)
            .map_err(|error| RunError::Training(error.to_string()))
    }

    pub(super) fn valid_event(&mut self, event: LearnerEvent<StepOutput>) -> Result<(), RunError> {
        self.events
            .process_valid(event)
            .map_err(|error| RunError::Training(error.to_string()))
    }
}

pub(super) fn mean_loss(outputs: &[StepOutput]) -> f64 {
    let count: usize = outputs.iter().map(|output| output.count).sum();
    let sum: f64 = outputs
        .iter()
        .map(|output| output.loss * output.count as f64)
        .sum();
    sum / count.max(1) as f64
}

/// The means of what the losses are sums of, by name.
pub(super) fn mean_parts(outputs: &[StepOutput]) -> BTreeMap<String, f64> {
    let count: usize = outputs.iter().map(|output| output.count).sum();
    let mut means = BTreeMap::new();
    for output in outputs {
        for &(name, loss) in &output.parts {
            *means.entry(name.to_string()).or_default() +=
                loss * output.count as f64 / count.max(1) as f64;
        }
    }
    means
}
