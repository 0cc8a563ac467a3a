//! What happens to data that can't be read, and the list of what was left out.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use crate::DataError;
pub use crate::annotations::OnError;
use crate::annotations::Skipped;

/// Names that are kept. A stream of a hundred million samples leaves out millions: those beyond are
/// counted, and named in the run's log alone.
const MAX_NAMES: usize = 10_000;

/// Counts and names the data that a run leaves out; shared by all readers of the run.
#[derive(Debug, Clone)]
pub struct SkipLog {
    on_error: OnError,
    skipped: Arc<Mutex<Skips>>,
}

#[derive(Debug, Default)]
struct Skips {
    named: BTreeMap<String, String>,
    unnamed: usize,
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

    /// Notes that `what` was left out. The same file in a later epoch counts once, as long as there
    /// is room for names.
    pub fn add(&self, what: &str, reason: &dyn Display) {
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        if skipped.named.contains_key(what) {
            return;
        }
        tracing::warn!("skipped {what}: {reason}");
        if skipped.named.len() < MAX_NAMES {
            skipped.named.insert(what.to_string(), reason.to_string());
        } else {
            skipped.unnamed += 1;
        }
    }

    /// Notes that `what` was left out for `error`, and gives the error back, if it may be skipped.
    ///
    /// # Errors
    ///
    /// `error` itself, where it ends the run.
    pub(crate) fn leave_out(&self, what: &str, error: DataError) -> Result<DataError, DataError> {
        if self.on_error == OnError::Fail || !error.is_damage() {
            return Err(error);
        }
        self.add(what, &error);
        Ok(error)
    }

    /// How much was left out so far.
    pub fn count(&self) -> usize {
        let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.named.len() + skipped.unnamed
    }

    /// What was left out so far, by name; the first ten thousand of [`count`](Self::count).
    pub fn list(&self) -> Vec<Skipped> {
        let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        let named = skipped.named.iter();
        named
            .map(|(what, reason)| Skipped {
                what: what.clone(),
                reason: reason.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_once_and_beyond_the_limit_each_time() {
        let skips = SkipLog::new(OnError::Skip);
        for number in 0..MAX_NAMES {
            for _ in 0..2 {
                skips.add(&format!("{number}.jpg"), &"cut");
            }
        }
        assert_eq!(skips.count(), MAX_NAMES);
        for _ in 0..2 {
            skips.add("one more.jpg", &"cut");
        }
        assert_eq!(skips.count(), MAX_NAMES + 2);
        assert_eq!(skips.list().len(), MAX_NAMES);
    }
}
