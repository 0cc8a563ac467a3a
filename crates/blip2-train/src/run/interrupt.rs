//! Ctrl-C and SIGTERM: the first asks the run to save and stop, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::RunError;

/// Whether the run was asked to stop.
#[derive(Debug, Clone, Default)]
pub struct StopSignal {
    stop: Arc<AtomicBool>,
}

impl StopSignal {
    /// Listens for SIGINT and SIGTERM from now on.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn install() -> Result<Self, RunError> {
        let signal = Self::default();
        for number in [SIGINT, SIGTERM] {
            // Registered first, so that it acts on the second signal only.
            flag::register_conditional_shutdown(number, 130, signal.stop.clone())
                .and_then(|_| flag::register(number, signal.stop.clone()))
                .map_err(RunError::io("signals"))?;
        }
        Ok(signal)
    }

    /// Asks the run to stop, as a signal would.
    pub fn request(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the run should save and stop.
    pub fn requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// An error if the run should stop and has nothing to save.
    ///
    /// # Errors
    ///
    /// [`RunError::Interrupted`].
    pub fn check(&self, resume: Option<&std::path::Path>) -> Result<(), RunError> {
        if self.requested() {
            return Err(RunError::Interrupted {
                resume: resume.map(std::path::Path::to_path_buf),
            });
        }
        Ok(())
    }
}
