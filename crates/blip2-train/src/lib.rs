//! Recipes for BLIP-2: training through Burn's learner, checkpoints and resume, evaluation,
//! reports; and the command line `blip2`.

pub mod adamw;
pub mod captioning;
pub mod cli;
pub mod data;
pub mod device;
pub mod devices;
mod error;
pub mod evaluate;
pub mod features;
pub mod hash;
mod model;
pub mod model_path;
pub mod optim;
pub mod out_of_memory;
pub mod plan;
pub mod recipe;
pub mod recipe_file;
pub mod remote;
pub mod report;
pub mod retrieval;
pub mod run;
pub mod schedule;
pub mod tasks;
pub mod train;

pub use error::RunError;
