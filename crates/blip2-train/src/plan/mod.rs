//! What a run costs before it begins: operations, memory, time and energy on a device.
//!
//! [`Workload`] takes the numbers out of a recipe. [`Model::step`](model::Model::step) walks through a step
//! as the modules do, on a tape that computes nothing ([`dry_run`]): what it counted becomes operations and
//! memory. A device ([`devices`], or the machine at hand by [`probe`]) turns operations into seconds.

mod captioning;
mod cost;
pub mod devices;
pub mod dry_run;
mod fit;
pub mod images;
mod machine;
pub mod memory;
pub mod model;
pub mod parameters;
pub mod preflight;
pub mod probe;
mod report;
mod run;
#[cfg(test)]
mod tests;
pub mod texts;
pub mod towers;
pub mod work;
pub mod workload;

pub use cost::{Plan, Settings};
pub use machine::{MainMemory, peak_memory};
pub use workload::Workload;
