//! A whole run: data, model, training, final scores, report.

mod captioner;
mod feed;
mod images;
mod splits;
mod stage1;
mod towers;

pub use captioner::{ConstantCaption, FinalScores};
pub use stage1::Stage1Scores;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, Mutex};

use blip2_data::batch::CaptionBatch;
use blip2_data::loader::{BatchSource, PrefetchLoader};
use blip2_data::skips::SkipLog;
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn_train::logger::MetricLogger;
use burn_train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn_train::metric::{LossMetric, MetricDefinition, NumericEntry};
use burn_train::{Learner, SupervisedTraining, TrainingStrategy};

use self::feed::Feed;
use crate::RunError;
use crate::devices::Devices;
use crate::optim::{learning_rates, optimizer};
use crate::recipe::{Recipe, TaskKind};
use crate::recipe_file;
use crate::run::checkpoint::{self, Found, State};
use crate::run::{
    Average, Identity, Outcome, PlainRenderer, RunFolder, StopSignal, TrainLoop, Watch,
    first_weight, write_atomic,
};
use crate::schedule::Schedule;
use crate::tasks::{ScoreMetric, Task};

/// Where a run begins.
#[derive(Debug)]
pub struct Start {
    /// The complete recipe.
    pub recipe: Recipe,
    /// The run's folder.
    pub folder: RunFolder,
    /// The checkpoint to go on from.
    pub resume: Option<Found>,
}

impl Start {
    /// A new run of `recipe` in the folder `out`.
    ///
    /// # Errors
    ///
    /// If the folder can't be made, or holds a run.
    pub fn new_run(recipe: Recipe, out: &Path) -> Result<Self, RunError> {
        let folder = RunFolder::create(out)?;
        write_atomic(&folder.config(), recipe_file::write(&recipe)?.as_bytes())?;
        Ok(Self {
            recipe,
            folder,
            resume: None,
        })
    }

    /// Goes on with the run in `path` at its newest whole checkpoint, or at its start.
    ///
    /// # Errors
    ///
    /// If it is no run folder, or its config can't be read.
    pub fn resume(path: &Path) -> Result<Self, RunError> {
        let folder = RunFolder::open(path)?;
        let recipe = recipe_file::read(&folder.config(), &[])?;
        checkpoint::recover(&folder)?;
        let resume = checkpoint::latest(&folder)?;
        Ok(Self {
            recipe,
            folder,
            resume,
        })
    }

    /// The state to go on from, for a run that is made of what has the hashes `sha256`.
    ///
    /// # Errors
    ///
    /// If the checkpoint belongs to another config, other data or other frozen towers.
    fn state<K: Into<String>>(
        &self,
        sha256: impl IntoIterator<Item = (K, String)>,
    ) -> Result<State, RunError> {
        let sha256 = sha256.into_iter().map(|(name, hash)| (name.into(), hash));
        let identity = Identity::new(&self.recipe, sha256.collect());
        let Some(found) = &self.resume else {
            return Ok(State::first(identity));
        };
        found.check(&identity)?;
        Ok(State {
            identity,
            ..found.state.clone()
        })
    }
}

/// Runs `start` to its end: trains, scores, reports.
///
/// # Errors
///
/// Whatever stopped it. The checkpoints up to then stay, and `--resume` goes on from them.
pub fn run(start: Start, devices: &Devices, stop: &StopSignal) -> Result<(), RunError> {
    check_shared(&start.recipe, devices)?;
    crate::data::prepare(&start.recipe.data)?;
    devices.main().seed(start.recipe.seed);
    match start.recipe.task {
        TaskKind::Caption => captioner::run(start, devices, stop),
        TaskKind::Stage1 => stage1::run(start, devices, stop),
        TaskKind::LanguageModel => towers::language_model(start, devices, stop),
        TaskKind::PatchClassification => towers::patch_classification(start, devices, stop),
    }
}

/// The recipe as `devices` train it: what `precision` means is decided ([`Recipe::on`]).
///
/// # Errors
///
/// A device that lacks what the recipe asks for, or several that take `precision` differently or can't share
/// a batch.
pub fn on_devices(recipe: Recipe, devices: &Devices) -> Result<Recipe, RunError> {
    check_shared(&recipe, devices)?;
    let resolved = recipe.clone().on(devices.main())?;
    let [main, others @ ..] = devices.all() else {
        return Ok(resolved);
    };
    for other in others {
        if recipe.clone().on(&other.device)? != resolved {
            return Err(RunError::Usage(format!(
                "`precision = \"auto\"` is not the same on {} and {}; name one that both have",
                main.word, other.word
            )));
        }
    }
    Ok(resolved)
}

/// Refuses several devices where a batch can't be shared: with a loss that is no mean over parts of a batch,
/// or fewer images than devices.
fn check_shared(recipe: &Recipe, devices: &Devices) -> Result<(), RunError> {
    let count = devices.all().len();
    if count == 1 {
        return Ok(());
    }
    let reason = match recipe.task {
        TaskKind::Stage1 => "the contrast of stage 1 is between all pairs of a batch",
        TaskKind::PatchClassification => "patches are weighted over a whole batch",
        TaskKind::Caption | TaskKind::LanguageModel => {
            let batch = recipe.train.batch_size;
            if batch >= count {
                return Ok(());
            }
            return Err(RunError::Usage(format!(
                "{count} devices can't share a batch of {batch}; set `train.batch_size` to {count} or \
                 more, or name fewer"
            )));
        }
    };
    Err(RunError::Usage(format!(
        "this task trains on one device, not on {count}: {reason}"
    )))
}

/// What is trained, and on what.
struct Training<T, S, V> {
    task: T,
    train: PrefetchLoader<S>,
    valid: PrefetchLoader<V>,
    /// Without it the mean accuracy chooses the best checkpoint.
    watch: Option<Box<dyn Watch<T>>>,
    state: State,
}

/// Trains a task from the start (or from the checkpoint of `start`) to the last epoch.
///
/// # Errors
///
/// [`RunError::Interrupted`] after a saved stop; else what went wrong.
fn fit<T, S, V>(
    start: &Start,
    training: Training<T, S, V>,
    devices: &Devices,
    stop: &StopSignal,
) -> Result<State, RunError>
where
    T: Task,
    S: BatchSource<Batch = T::Batch>,
    V: BatchSource<Batch = T::Batch>,
{
    let Training {
        task,
        train,
        valid,
        watch,
        state,
    } = training;
    let recipe = &start.recipe;
    let epochs = recipe.train.epochs;
    if state.epoch > epochs {
        return Ok(state);
    }
    check_batch_size(recipe, train.epoch_items())?;
    // Random weights are drawn when they are first looked at: here, so that their order does not
    // depend on what the recipe looks at.
    if let Some(path) = first_weight(&task) {
        return Err(RunError::Training(format!(
            "the weight {path} is not finite before the first step"
        )));
    }
    let average = match (recipe.train.ema_decay, &start.resume) {
        (Some(decay), Some(found)) => Some(Average::new(decay, &found.load_into(task.clone())?)),
        (Some(decay), None) => Some(Average::new(decay, &task)),
        (None, _) => None,
    };
    let (task, optimizer) = restore(start, task, optimizer(&recipe.optimizer))?;
    let steps_per_epoch = train.num_batches().div_ceil(recipe.train.accumulation);
    let schedule = Schedule::new(&recipe.schedule, steps_per_epoch, epochs, state.step);
    let layer_decay = recipe.optimizer.lr_layer_decay;
    let rates = learning_rates(&schedule, layer_decay, task.trained_vision_layers());
    let learner = Learner::new(task, optimizer, rates);

    let places: Vec<_> = devices.all().iter().map(|one| one.device.clone()).collect();
    let strategy = Arc::new(TrainLoop {
        folder: start.folder.clone(),
        recipe: recipe.clone(),
        devices: devices.clone(),
        train: train.in_parts(&places),
        start: state,
        stop: stop.clone(),
        watch,
        average,
        outcome: Mutex::new(None),
    });
    let mut training =
        SupervisedTraining::<T>::new(start.folder.path(), Arc::new(train), Arc::new(valid))
            .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
            // Logs go to log.txt and metrics to metrics.jsonl.
            .with_application_logger(None)
            .with_metric_logger(Silent)
            .metrics((LossMetric::new(),))
            .metric_valid_numeric(ScoreMetric::new(T::SCORE))
            .num_epochs(epochs);
    if !(std::io::stdout().is_terminal() && std::io::stderr().is_terminal()) {
        training = training.renderer(Box::new(PlainRenderer::default()));
    }
    drop(training.launch(learner));
    let outcome = strategy
        .outcome
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    match outcome {
        Some(Ok(Outcome {
            state,
            interrupted: false,
        })) => Ok(state),
        Some(Ok(_)) => Err(RunError::Interrupted {
            resume: Some(start.folder.path().to_path_buf()),
        }),
        Some(Err(error)) => Err(error),
        None => Err(RunError::Training("the loop did not run".into())),
    }
}

/// Trains `task` on `feed`, judged by `watch`; returns it with its best weights, and the steps that
/// they have seen. Without epochs it comes back as it is.
///
/// # Errors
///
/// As [`fit`].
fn fit_judged<T: Task<Batch = CaptionBatch>>(
    start: &Start,
    task: T,
    feed: Feed,
    watch: Box<dyn Watch<T>>,
    devices: &Devices,
    stop: &StopSignal,
) -> Result<(T, usize), RunError> {
    let training = Training {
        task: task.clone(),
        train: feed.train,
        valid: feed.valid,
        watch: Some(watch),
        state: feed.state,
    };
    fit(start, training, devices, stop)?;
    if start.recipe.train.epochs == 0 {
        return Ok((task, 0));
    }
    let best = checkpoint::best(&start.folder)?;
    Ok((best.load_into(task)?, best.state.step))
}

/// What every run of images and captions ends with: what was left out, and where the report is.
fn finished(folder: &RunFolder, skips: &SkipLog) {
    if skips.count() > 0 {
        eprintln!(
            "{} items were skipped; the report lists them",
            skips.count()
        );
    }
    eprintln!("report: {}", folder.report().display());
    println!("{}", folder.path().display());
}

/// Refuses batches that no epoch of `items` fills.
fn check_batch_size(recipe: &Recipe, items: usize) -> Result<(), RunError> {
    let size = recipe.train.batch_size;
    if size <= items {
        return Ok(());
    }
    Err(RunError::Usage(format!(
        "field `train.batch_size` is {size}, but an epoch of the train split has only {items} \
         items; set it to at most that"
    )))
}

fn restore<T: Module>(
    start: &Start,
    task: T,
    optimizer: ModuleOptimizer,
) -> Result<(T, ModuleOptimizer), RunError> {
    match &start.resume {
        // The weights bring their ids back, by which the optimizer knows its moments.
        Some(found) => Ok((
            found.load_trained(task)?,
            optimizer.load_record(found.optimizer()?),
        )),
        None => Ok((task, optimizer)),
    }
}

/// Burn's event store wants a metric logger; ours is `metrics.jsonl`, written by the loop.
struct Silent;

impl MetricLogger for Silent {
    fn log(&mut self, _update: MetricsUpdate, _epoch: usize, _split: &Split) {}

    fn read_numeric(
        &mut self,
        _name: &str,
        _epoch: usize,
        _split: &Split,
    ) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, _definition: MetricDefinition) {}

    fn log_epoch_summary(&mut self, _summary: EpochSummary) {}
}
