//! Checkpoints of stage 1: LAVIS's, transformers' `Blip2ForImageTextRetrieval`, our own.

mod bert;
mod export;
mod import;
pub(super) mod names;

pub(crate) use bert::load_bert;
pub use export::export_stage1;
pub use import::{Stage1Checkpoint, Stage1Import, load_stage1_parts};
