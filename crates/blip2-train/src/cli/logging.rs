//! Warnings to stderr, and everything to the run's `log.txt` once there is a run.

use std::fs::OpenOptions;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

use crate::RunError;
use crate::run::RunFolder;

type FileLayer = Option<Box<dyn Layer<Registry> + Send + Sync>>;

static FILE: Mutex<Option<Handle<FileLayer, Registry>>> = Mutex::new(None);

/// Starts logging to stderr.
pub(super) fn install() {
    let (file, handle) = reload::Layer::new(None as FileLayer);
    let stderr = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_filter(LevelFilter::WARN);
    // Fails only if a test of this process has installed one.
    let _ = tracing_subscriber::registry()
        .with(file)
        .with(stderr)
        .try_init();
    *FILE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(handle);
}

/// Logs to the run's `log.txt` as well.
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
    let ours = Targets::new()
        .with_target("blip2", LevelFilter::INFO)
        .with_default(LevelFilter::WARN);
    let layer = fmt::layer()
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .with_filter(ours)
        .boxed();
    if let Some(handle) = &*FILE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        // The subscriber lives as long as the process.
        let _ = handle.reload(Some(layer));
    }
    Ok(())
}
