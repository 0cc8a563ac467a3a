//! Data for BLIP-2: annotation formats, image transforms, tokenizer, batches, and the built-in data
//! set `emoji-scenes`.
//!
//! The way of the data: an annotation file and an image folder ([`annotations::load`]) give
//! [`sample::Sample`]s; an [`images::ImageSource`] decodes and preprocesses their files
//! ([`transforms`]), a [`batch::CaptionSource`] puts them and their captions into batches, and a
//! [`loader::PrefetchLoader`] reads those ahead, in an order that depends on the seed alone. Where there
//! is too much to list, a [`stream::StreamSource`] reads tar shards in the place of both. Images that are
//! only to be captioned, without annotations, are a [`collection::Collection`].

pub mod annotations;
pub mod batch;
pub mod cleaning;
pub mod collection;
pub mod emoji_scenes;
mod error;
pub mod images;
pub mod loader;
pub mod sample;
pub mod skips;
pub mod stream;
pub mod tokenizer;
pub mod transforms;

pub use batch::{CaptionBatch, CaptionSample, Prediction};
pub use error::DataError;
pub use images::ImageInput;
