//! A run: its folder, its checkpoints, its loop.

pub mod checkpoint;
mod folder;
mod interrupt;
mod metrics;
mod progress;
mod strategy;

pub use folder::{RunFolder, write_atomic, write_json};
pub use interrupt::StopSignal;
pub use metrics::{MetricsFile, Record};
pub use progress::PlainRenderer;
pub use strategy::{Outcome, ScoreHook, TrainLoop};
