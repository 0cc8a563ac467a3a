//! A run: its folder, its checkpoints, its loop.

mod average;
mod capture;
pub mod checkpoint;
mod copies;
mod events;
mod finite;
mod folder;
mod host;
mod identity;
mod interrupt;
mod metrics;
mod progress;
mod strategy;
mod validation;
mod watch;

pub use average::Average;
pub use finite::{first_weight, is_finite};
pub use folder::{RunFolder, write_atomic, write_json};
pub use identity::Identity;
pub use interrupt::StopSignal;
pub use metrics::{MetricsFile, Record};
pub use progress::PlainRenderer;
pub use strategy::{Outcome, TrainLoop};
pub use watch::{EpochScores, Watch};
