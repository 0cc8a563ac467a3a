//! Checkpoints: `checkpoints/step-N/` with the trained weights, the optimizer and the position.
//!
//! A checkpoint is written under a temporary name, synced and renamed, so that a kill at any
//! moment leaves either the old checkpoints or the old ones and a whole new one. One that is written
//! again is put aside until the new one is there. Frozen towers are not in it: the recipe names their
//! files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use blip2::checkpoint::{Source, Weights};
use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use serde::{Deserialize, Serialize};

use super::capture::Captured;
use super::{Identity, RunFolder};
use crate::RunError;
use crate::hash::file_sha256;

pub(super) const MODEL: &str = "model.bpk";
pub(super) const OPTIMIZER: &str = "optimizer.bpk";
pub(super) const AVERAGE: &str = "average.bpk";
const STATE: &str = "state.json";
/// Ends of the hidden names of a checkpoint that is being written, and of the one it replaces.
const NEW: &str = ".tmp";
const OLD: &str = ".old";

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
    /// The best validation scores so far and their steps, best first.
    pub best: Vec<Best>,
    /// The lines of `metrics.jsonl` up to here.
    pub metrics_lines: usize,
    /// Steps in a row without a finite loss and gradient, up to here.
    pub non_finite: usize,
    /// The recipe, data and towers that it belongs to.
    pub identity: Identity,
    /// SHA-256 of the other files by name, in hex.
    pub sha256: BTreeMap<String, String>,
}

impl State {
    /// Before the first step.
    pub fn first(identity: Identity) -> Self {
        Self {
            step: 0,
            epoch: 1,
            batch: 0,
            score: None,
            best: Vec::new(),
            metrics_lines: 0,
            non_finite: 0,
            identity,
            sha256: BTreeMap::new(),
        }
    }

    /// Notes the score of an epoch; the `keep` best are remembered.
    pub fn scored(&mut self, score: f64, keep: usize) {
        self.score = Some(score);
        let step = self.step;
        self.best.push(Best { step, score });
        // Stable: of equal scores the earlier one is better.
        self.best.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.best.truncate(keep);
    }
}

/// One of the best checkpoints so far.
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
    /// The state of the optimizer.
    ///
    /// # Errors
    ///
    /// If the file can't be read.
    pub fn optimizer(&self) -> Result<OptimizerRecord, RunError> {
        OptimizerRecord::load(self.path.join(OPTIMIZER)).map_err(|error| self.error(&error))
    }

    /// Puts the weights that were validated into `module`: their average, if the run keeps one.
    ///
    /// # Errors
    ///
    /// If they belong to another config: the message names the parameters.
    pub fn load_into<M: Module>(&self, module: M) -> Result<M, RunError> {
        self.load(self.judged(), module)
    }

    /// Puts the weights that are trained into `module`.
    ///
    /// # Errors
    ///
    /// As [`load_into`](Self::load_into).
    pub fn load_trained<M: Module>(&self, module: M) -> Result<M, RunError> {
        self.load(MODEL, module)
    }

    fn load<M: Module>(&self, name: &str, module: M) -> Result<M, RunError> {
        let record =
            ModuleRecord::load(self.path.join(name)).map_err(|error| self.error(&error))?;
        module
            .try_load_record(record)
            .map_err(|error| self.error(&error))
    }

    /// Whether it is of stage 1.
    ///
    /// # Errors
    ///
    /// If the file can't be read.
    pub fn is_stage1(&self) -> Result<bool, RunError> {
        let source = Source::open(&self.path.join(self.judged()))?;
        let head = |key: &String| key.starts_with("model.heads.");
        Ok(source.tensors().keys().any(head))
    }

    /// The validated weights by their parts, none read yet.
    ///
    /// # Errors
    ///
    /// If the file can't be read.
    pub fn weights(&self) -> Result<Weights, RunError> {
        let source = Source::open(&self.path.join(self.judged()))?;
        Ok(Weights::of(&source.without_prefix("model."))?)
    }

    /// The file of the weights that were validated: their average, if the run keeps one.
    fn judged(&self) -> &'static str {
        match self.state.sha256.contains_key(AVERAGE) {
            true => AVERAGE,
            false => MODEL,
        }
    }

    /// Whether weights of LoRA adapters are in it.
    ///
    /// # Errors
    ///
    /// If the file can't be read.
    pub fn has_adapters(&self) -> Result<bool, RunError> {
        let source = Source::open(&self.path.join(MODEL))?;
        Ok(source.tensors().keys().any(|key| key.contains(".lora.")))
    }

    /// Refuses to go on with another config, other data or other frozen towers.
    ///
    /// # Errors
    ///
    /// Names the first difference.
    pub fn check(&self, run: &Identity) -> Result<(), RunError> {
        let Some(difference) = self.state.identity.difference(run) else {
            return Ok(());
        };
        Err(RunError::Checkpoint {
            path: self.path.clone(),
            reason: format!(
                "{difference}; put that back to resume, or start a new run, whose \
                 `model.init_cfg.checkpoint` may be this one"
            ),
        })
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
    for name in [MODEL, OPTIMIZER] {
        if !state.sha256.contains_key(name) {
            return Err(damaged(format!("{STATE} does not name {name}")));
        }
    }
    for (name, expected) in &state.sha256 {
        let found =
            file_sha256(&path.join(name)).map_err(|error| damaged(format!("{name}: {error}")))?;
        if found != *expected {
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

/// The newest whole checkpoint of a run; damaged ones are named in the log and passed over. None if
/// the run has not written any.
///
/// # Errors
///
/// If the folder can't be listed, or there are checkpoints and none is whole.
pub fn latest(folder: &RunFolder) -> Result<Option<Found>, RunError> {
    let mut last = None;
    for step in steps(folder)?.into_iter().rev() {
        match open(&path_of(folder, step)) {
            Ok(found) => {
                if last.is_some() {
                    tracing::warn!("the checkpoint of step {step}, which is whole, is used");
                }
                return Ok(Some(found));
            }
            Err(error) => {
                tracing::warn!("{error}; trying the one before it");
                last = Some(error);
            }
        }
    }
    // To begin anew would write over what may still be of use.
    last.map_or(Ok(None), Err)
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
    for best in &latest.state.best {
        match open(&path_of(folder, best.step)) {
            Ok(found) => return Ok(found),
            Err(error) => tracing::warn!("{error}; using the next best, or else the latest"),
        }
    }
    Ok(latest)
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

/// Writes a checkpoint, then removes those that the policy no longer keeps: all but the best ones
/// and the last `keep_last`.
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
    let temporary = hidden(folder, state.step, NEW);
    let old = hidden(folder, state.step, OLD);
    let write = || -> std::io::Result<()> {
        remove(&temporary)?;
        fs::create_dir_all(&temporary)?;
        state.sha256.clear();
        for (name, record) in captured.files {
            let file = temporary.join(name);
            record.save(file.clone()).map_err(std::io::Error::other)?;
            state.sha256.insert(name.to_string(), file_sha256(&file)?);
        }
        save(&temporary.join(STATE), &serde_json::to_vec_pretty(&state)?)?;
        File::open(&temporary)?.sync_all()?;
        if path.exists() {
            fs::rename(&path, &old)?;
        }
        fs::rename(&temporary, &path)?;
        File::open(folder.checkpoints())?.sync_all()?;
        remove(&old)
    };
    if let Err(error) = write() {
        // Half a checkpoint takes room that the next one may need.
        let _ = remove(&temporary);
        return Err(RunError::io(path)(error));
    }
    remove_old(folder, &state, keep_last)
}

/// Puts back what a kill left aside while a checkpoint was written again, and clears half ones away.
///
/// # Errors
///
/// If the folder can't be changed.
pub fn recover(folder: &RunFolder) -> Result<(), RunError> {
    let checkpoints = folder.checkpoints();
    let Ok(entries) = fs::read_dir(&checkpoints) else {
        return Ok(());
    };
    let recover = |name: &str| -> std::io::Result<()> {
        let aside = checkpoints.join(name);
        let Some(shown) = name.strip_prefix('.') else {
            return Ok(());
        };
        match shown.strip_suffix(OLD).map(|name| checkpoints.join(name)) {
            Some(path) if !path.exists() => fs::rename(&aside, &path),
            Some(_) => remove(&aside),
            None if shown.ends_with(NEW) => remove(&aside),
            None => Ok(()),
        }
    };
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str() {
            recover(name).map_err(RunError::io(entry.path()))?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match folder.exists() {
        true => fs::remove_dir_all(folder),
        false => Ok(()),
    }
}

fn remove_old(folder: &RunFolder, state: &State, keep_last: usize) -> Result<(), RunError> {
    let mut steps = steps(folder)?;
    // Later ones are damaged: this run has gone on from before them.
    steps.retain(|&step| step <= state.step);
    let kept_from = steps.len().saturating_sub(keep_last);
    for &step in &steps[..kept_from] {
        if !state.best.iter().any(|best| best.step == step) {
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

fn hidden(folder: &RunFolder, step: usize, end: &str) -> PathBuf {
    folder.checkpoints().join(format!(".step-{step}{end}"))
}

fn save(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
