//! Ctrl-C, SIGTERM and the end of a terminal's session: the first asks the run to save and stop, the second ends it at once.

use std::io::IsTerminal;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

#[cfg(unix)]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::RunError;

/// Whether the run was asked to stop.
#[derive(Debug, Clone)]
pub struct StopSignal {
    stop: Arc<AtomicBool>,
    dashboard: Arc<Once>,
}

impl StopSignal {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn install() -> Result<Self, RunError> {
        let signal = Self {
            stop: Arc::default(),
            dashboard: Arc::new(Once::new()),
        };
        let signals = [
            SIGINT,
            SIGTERM,
            #[cfg(unix)]
            SIGHUP,
        ];
        for number in signals {
            // Registered first, so that it acts on the second signal only.
            flag::register_conditional_shutdown(number, 130, signal.stop.clone())
                .and_then(|_| flag::register(number, signal.stop.clone()))
                .map_err(RunError::io("signals"))?;
        }
        Ok(signal)
    }

    /// Makes Ctrl-C a signal again once the dashboard is up.
    ///
    /// Burn's dashboard puts the terminal in raw mode, where Ctrl-C is a key like any other, and
    /// looks at `q` alone. When it closes it restores what was before.
    pub fn keep_ctrl_c(&self) {
        self.dashboard.call_once(|| {
            if cfg!(unix) && std::io::stdin().is_terminal() {
                // Without `stty` the dashboard's `q` still stops the run.
                let _ = Command::new("stty")
                    .arg("isig")
                    .stdin(Stdio::inherit())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
            }
        });
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
