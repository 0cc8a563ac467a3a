//! Checkpoints of any known layout in, Hugging Face's, LAVIS's and our own out.
//!
//! [`Import`] looks a checkpoint through and gives account of every key ([`LoadReport`]);
//! [`Checkpoint::load`] makes the captioner. [`export`] writes one. Tensors go to the memory of their
//! parameters piece by piece, or to a file one after the other, and are never held besides.

mod architecture;
mod dimensions;
pub mod export;
mod fill;
pub mod hugging_face;
mod import;
mod load;
pub mod names;
mod place;
mod report;
mod source;
mod stage1;
mod towers;
mod weights;

pub(crate) use architecture::list as expected_of;
pub use architecture::{Architecture, Bridge};
pub use dimensions::{opt_dimensions, vision_dimensions};
pub use export::{WeightsDType, save_opt, save_vision};
pub use fill::{Expected, Precision, Progress};
pub use import::{Checkpoint, Import, Imported};
pub use load::load_trained_parts;
pub use report::LoadReport;
pub(crate) use report::shortened;
pub(crate) use source::note;
#[cfg(feature = "hub")]
pub(crate) use source::shard_files;
pub use source::{Source, StoredTensor};
pub(crate) use stage1::load_bert;
pub use stage1::{Stage1Checkpoint, Stage1Import, export_stage1, load_stage1_parts};
pub use towers::{load_opt, load_vision};
pub use weights::{Weight, Weights};
