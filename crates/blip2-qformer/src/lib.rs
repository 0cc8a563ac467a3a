//! The Querying Transformer of BLIP-2.
//!
//! [`QFormerConfig`] → [`QFormerConfig::init`] → [`QFormer::forward`] reads image embeddings with
//! learned queries; [`VisionNeck`] projects the result to a language model's width.

mod attention;
mod config;
mod encoder;
pub mod keymap;
mod layer;
mod neck;

pub use attention::{Attention, AttentionOutput};
pub use config::{QFormerConfig, QFormerError};
pub use encoder::QFormer;
pub use layer::Layer;
pub use neck::VisionNeck;
