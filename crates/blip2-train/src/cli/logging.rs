//! Warnings to stderr, and everything to the run's `log.txt` once there is a run.

use std::fs::{File, OpenOptions};
use std::sync::{Arc, OnceLock};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::OptionalWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::RunError;
use crate::run::RunFolder;

/// The run's log, once there is a run. A layer that is put in later would see nothing: filters are counted
/// when the subscriber is made.
static LOG: OnceLock<Arc<File>> = OnceLock::new();

/// Starts logging to stderr.
pub(super) fn install() {
    let ours = Targets::new()
        .with_target("blip2", LevelFilter::INFO)
        .with_default(LevelFilter::WARN);
    let file = fmt::layer()
        .with_ansi(false)
        .with_writer(|| match LOG.get() {
            Some(file) => OptionalWriter::some(Arc::clone(file)),
            None => OptionalWriter::none(),
        })
        .with_filter(ours);
    // A lost server is one line, not one for each tensor that was under way.
    let warnings = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("burn_remote::client", LevelFilter::OFF);
    let stderr = fmt::layer()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_filter(warnings);
    // Fails only if a test of this process has installed one.
    let _ = tracing_subscriber::registry()
        .with(file)
        .with(stderr)
        .try_init();
}

/// Logs to the run's `log.txt` as well. A process has one run.
///
/// # Errors
///
/// If the file can't be written.
pub(super) fn to_run(folder: &RunFolder) -> Result<(), RunError> {
    let path = folder.log();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(RunError::io(&path))?;
    let _ = LOG.set(Arc::new(file));
    Ok(())
}
