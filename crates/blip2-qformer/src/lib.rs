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
mod residual;

pub use attention::Attention;
pub use config::{Activation, QFormerConfig, QFormerError};
pub use encoder::QFormer;
pub use layer::Layer;
pub use neck::VisionNeck;
pub use residual::ResidualOutput;
