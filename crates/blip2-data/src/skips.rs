//! What happens to data that can't be read, and the list of what was left out.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::annotations::OnError;
use crate::annotations::Skipped;

/// Counts and names the data that a run leaves out; shared by all readers of the run.
#[derive(Debug, Clone)]
pub struct SkipLog {
    on_error: OnError,
    skipped: Arc<Mutex<BTreeMap<String, String>>>,
}

impl SkipLog {
    /// An empty list under the given policy.
    pub fn new(on_error: OnError) -> Self {
        Self {
            on_error,
            skipped: Arc::default(),
        }
    }

    /// Whether unreadable data ends the run or is skipped.
    pub fn on_error(&self) -> OnError {
        self.on_error
    }

    /// Notes that `what` was left out. The same file in a later epoch counts once.
    pub fn add(&self, what: &str, reason: &dyn Display) {
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        if !skipped.contains_key(what) {
            tracing::warn!("skipped {what}: {reason}");
            skipped.insert(what.to_string(), reason.to_string());
        }
    }

    /// Everything that was left out so far, by name.
    pub fn list(&self) -> Vec<Skipped> {
        let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped
            .iter()
            .map(|(what, reason)| Skipped {
                what: what.clone(),
                reason: reason.clone(),
            })
            .collect()
    }
}
