//! Checkpoints: `checkpoints/step-N/` with the trained weights, the optimizer and the position.
//!
//! A checkpoint is written under a temporary name, synced and renamed, so that a kill at any
//! moment leaves either the old checkpoints or the old ones and a whole new one. Frozen towers are
//! not in it: the recipe names their files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::optim::lr_scheduler::LrSchedulerRecord;
use burn::store::ModuleRecord;
use burn_train::checkpoint::{
    AsyncCheckpointer, Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction,
    CheckpointingStrategy,
};
use burn_train::metric::store::EventStoreClient;
use burn_train::{Interrupter, Learner, LearnerModel, LearningCheckpointer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::RunFolder;
use crate::RunError;

const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const STATE: &str = "state.json";

/// Everything of a run's state that is not a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Optimizer steps done.
    pub step: usize,
    /// The epoch of the next batch, from 1.
    pub epoch: usize,
    /// The next batch of that epoch, from 0.
    pub batch: usize,
    /// The validation score, if this checkpoint ends an epoch.
    pub score: Option<f64>,
    /// The best validation score so far and its step.
    pub best: Option<Best>,
    /// SHA-256 of the other files, in hex.
    pub model_sha256: String,
    /// SHA-256 of the optimizer's file, in hex.
    pub optimizer_sha256: String,
}

/// The best checkpoint so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Its step.
    pub step: usize,
    /// Its validation score.
    pub score: f64,
}

/// One checkpoint on disk that was found whole.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its folder.
    pub path: PathBuf,
    /// Its state.
    pub state: State,
}

impl Found {
    /// The trained weights, to be given to `Module::try_load_record`.
    ///
    /// # Errors
    ///
    /// If the file can't be read.
    pub fn model(&self) -> Result<ModuleRecord, RunError> {
        ModuleRecord::load(self.path.join(MODEL)).map_err(|error| self.error(&error))
    }

    /// The state of the optimizer.
    ///
    /// # Errors
    ///
    /// If the file can't be read.
    pub fn optimizer(&self) -> Result<OptimizerRecord, RunError> {
        OptimizerRecord::load(self.path.join(OPTIMIZER)).map_err(|error| self.error(&error))
    }

    /// Puts the trained weights into `module`.
    ///
    /// # Errors
    ///
    /// If they belong to another config: the message names the parameters.
    pub fn load_into<M: Module>(&self, module: M) -> Result<M, RunError> {
        module
            .try_load_record(self.model()?)
            .map_err(|error| self.error(&error))
    }

    fn error(&self, error: &dyn std::fmt::Display) -> RunError {
        RunError::Checkpoint {
            path: self.path.clone(),
            reason: format!("does not fit this run: {error}"),
        }
    }
}

/// Opens one checkpoint folder and checks that its files are whole.
///
/// # Errors
///
/// What is missing or damaged.
pub fn open(path: &Path) -> Result<Found, RunError> {
    let damaged = |reason: String| RunError::Checkpoint {
        path: path.to_path_buf(),
        reason,
    };
    let text = fs::read(path.join(STATE)).map_err(|error| damaged(format!("{STATE}: {error}")))?;
    let state: State =
        serde_json::from_slice(&text).map_err(|error| damaged(format!("{STATE}: {error}")))?;
    for (name, expected) in [
        (MODEL, &state.model_sha256),
        (OPTIMIZER, &state.optimizer_sha256),
    ] {
        let bytes =
            fs::read(path.join(name)).map_err(|error| damaged(format!("{name}: {error}")))?;
        if sha256(&bytes) != *expected {
            return Err(damaged(format!(
                "{name} is damaged: its SHA-256 is another"
            )));
        }
    }
    Ok(Found {
        path: path.to_path_buf(),
        state,
    })
}

/// The newest whole checkpoint of a run; damaged ones are named in the log and passed over.
///
/// # Errors
///
/// If the folder can't be listed.
pub fn latest(folder: &RunFolder) -> Result<Option<Found>, RunError> {
    for step in steps(folder)?.into_iter().rev() {
        match open(&path_of(folder, step)) {
            Ok(found) => return Ok(Some(found)),
            Err(error) => tracing::warn!("{error}; trying the one before it"),
        }
    }
    Ok(None)
}

/// The best whole checkpoint of a run by validation score, or else the latest.
///
/// # Errors
///
/// If there is none.
pub fn best(folder: &RunFolder) -> Result<Found, RunError> {
    let latest = latest(folder)?.ok_or_else(|| RunError::Checkpoint {
        path: folder.checkpoints(),
        reason: "there is no whole checkpoint".into(),
    })?;
    let Some(best) = latest.state.best else {
        return Ok(latest);
    };
    match open(&path_of(folder, best.step)) {
        Ok(found) => Ok(found),
        Err(error) => {
            tracing::warn!("{error}; using the latest instead of the best");
            Ok(latest)
        }
    }
}

/// Whether `path` is a run folder or a checkpoint of one.
pub fn is_one(path: &Path) -> bool {
    path.join(STATE).is_file() || RunFolder::is_at(path)
}

/// The checkpoint that `path` means: a run folder's best, or the checkpoint folder itself.
///
/// # Errors
///
/// If there is none.
pub fn find(path: &Path) -> Result<Found, RunError> {
    if path.join(STATE).is_file() {
        open(path)
    } else {
        best(&RunFolder::open(path)?)
    }
}

/// Writes a checkpoint, then removes those that the policy no longer keeps: all but the best and
/// the last `keep_last`.
///
/// # Errors
///
/// If it can't be written; the older checkpoints are then untouched.
pub fn write(
    folder: &RunFolder,
    captured: Captured,
    mut state: State,
    keep_last: usize,
) -> Result<(), RunError> {
    let path = path_of(folder, state.step);
    let temporary = folder
        .checkpoints()
        .join(format!(".step-{}.tmp", state.step));
    let io = RunError::io(path.clone());
    let mut write = || -> std::io::Result<()> {
        if temporary.exists() {
            fs::remove_dir_all(&temporary)?;
        }
        fs::create_dir_all(&temporary)?;
        state.model_sha256 = save(&temporary.join(MODEL), &captured.model)?;
        state.optimizer_sha256 = save(&temporary.join(OPTIMIZER), &captured.optimizer)?;
        save(&temporary.join(STATE), &serde_json::to_vec_pretty(&state)?)?;
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::rename(&temporary, &path)?;
        File::open(folder.checkpoints())?.sync_all()
    };
    write().map_err(io)?;
    remove_old(folder, &state, keep_last)
}

fn remove_old(folder: &RunFolder, state: &State, keep_last: usize) -> Result<(), RunError> {
    let steps = steps(folder)?;
    let kept_from = steps.len().saturating_sub(keep_last);
    let best = state.best.map(|best| best.step);
    for &step in &steps[..kept_from] {
        if Some(step) != best {
            let path = path_of(folder, step);
            fs::remove_dir_all(&path).map_err(RunError::io(&path))?;
        }
    }
    Ok(())
}

/// The steps of the checkpoints on disk, in order.
fn steps(folder: &RunFolder) -> Result<Vec<usize>, RunError> {
    let checkpoints = folder.checkpoints();
    if !checkpoints.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&checkpoints).map_err(RunError::io(&checkpoints))?;
    let mut steps: Vec<usize> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix("step-")?.parse().ok()
        })
        .collect();
    steps.sort_unstable();
    Ok(steps)
}

fn path_of(folder: &RunFolder, step: usize) -> PathBuf {
    folder.checkpoints().join(format!("step-{step}"))
}

fn save(path: &Path, bytes: &[u8]) -> std::io::Result<String> {
    use std::io::Write;
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(sha256(bytes))
}

/// The SHA-256 of `bytes` in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A learner's state as bytes.
#[derive(Debug)]
pub struct Captured {
    model: Vec<u8>,
    optimizer: Vec<u8>,
}

/// Takes the state out of Burn's learner at any step.
///
/// The learner hands its optimizer to checkpointers only, and Burn's own write one file each, once
/// an epoch, without the data position. These checkpointers pass the records on in memory.
pub struct Capture<M: LearnerModel> {
    checkpointer: LearningCheckpointer<M>,
    model: Receiver<Result<Vec<u8>, String>>,
    optimizer: Receiver<Result<Vec<u8>, String>>,
}

impl<M: LearnerModel> Capture<M> {
    /// Errors of the checkpointer's threads go to `interrupter`.
    pub fn new(interrupter: &Interrupter) -> Self {
        let (model_sender, model) = channel();
        let (optimizer_sender, optimizer) = channel();
        let checkpointer = LearningCheckpointer::new(
            AsyncCheckpointer::<ModuleRecord>::new(Pass::new(model_sender))
                .with_interrupter(interrupter.clone()),
            AsyncCheckpointer::<OptimizerRecord>::new(Pass::new(optimizer_sender))
                .with_interrupter(interrupter.clone()),
            // The schedule is a function of the step; nobody reads this channel.
            AsyncCheckpointer::<LrSchedulerRecord>::new(Pass::new(channel().0)),
            Box::new(Always),
        );
        Self {
            checkpointer,
            model,
            optimizer,
        }
    }

    /// The learner's state after `step`.
    ///
    /// # Errors
    ///
    /// If a record can't be made bytes.
    pub fn take(
        &mut self,
        learner: &Learner<M>,
        step: usize,
        store: &EventStoreClient,
    ) -> Result<Captured, RunError> {
        self.checkpointer.checkpoint(learner, step, store);
        let receive = |receiver: &Receiver<Result<Vec<u8>, String>>| {
            receiver
                .recv()
                .unwrap_or_else(|_| Err("its thread ended".into()))
                .map_err(|reason| {
                    RunError::Training(format!("the state of step {step} can't be read: {reason}"))
                })
        };
        Ok(Captured {
            model: receive(&self.model)?,
            optimizer: receive(&self.optimizer)?,
        })
    }
}

struct Pass {
    sender: Mutex<Sender<Result<Vec<u8>, String>>>,
}

impl Pass {
    fn new(sender: Sender<Result<Vec<u8>, String>>) -> Self {
        Self {
            sender: Mutex::new(sender),
        }
    }
}

impl<R: Checkpoint> Checkpointer<R> for Pass {
    fn save(&self, _step: usize, record: R) -> Result<(), CheckpointerError> {
        let bytes = record
            .checkpoint_into_bytes()
            .map(|bytes| bytes.to_vec())
            .map_err(|error| error.to_string());
        if let Ok(sender) = self.sender.lock() {
            // Without a receiver nobody needs the record.
            let _ = sender.send(bytes);
        }
        Ok(())
    }

    fn delete(&self, _step: usize) -> Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, step: usize) -> Result<R, CheckpointerError> {
        Err(CheckpointerError::Unknown(format!(
            "step {step} is restored from the run folder"
        )))
    }
}

struct Always;

impl CheckpointingStrategy for Always {
    fn checkpointing(
        &mut self,
        _step: usize,
        _store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        vec![CheckpointingAction::Save]
    }
}
