//! What a run looks at besides the loss.

use std::collections::BTreeMap;

use crate::RunError;

/// The scores of an epoch.
#[derive(Debug, Clone)]
pub struct EpochScores {
    /// What chooses the best checkpoint; higher is better.
    pub best_by: f64,
    /// Everything that was computed, by name; fractions.
    pub all: BTreeMap<String, f64>,
}

/// Looks at the model of a task while it learns.
pub trait Watch<T> {
    /// Scores the validation split after an epoch.
    ///
    /// # Errors
    ///
    /// If it can't be read or scored, or on a request to stop.
    fn scores(&self, task: &T, epoch: usize) -> Result<EpochScores, RunError>;

    /// What the model makes of a few fixed inputs, by their names.
    ///
    /// # Errors
    ///
    /// As [`scores`](Self::scores).
    fn samples(&self, task: &T) -> Result<BTreeMap<String, String>, RunError>;
}
