//! The Querying Transformer of BLIP-2.
//!
//! [`QFormerConfig`] → [`QFormerConfig::init`] → [`QFormer::forward`] reads image embeddings with
//! learned queries; [`VisionNeck`] projects the result to a language model's width. With
//! [`QFormerConfig::text`] it has the text branch of BLIP-2's first stage:
//! [`QFormer::forward_text`] reads text alone, [`QFormer::forward_multimodal`] both together.

mod attention;
mod config;
mod encoder;
pub mod keymap;
mod layer;
mod mask;
mod neck;
mod residual;
mod shared;
mod text;

pub use attention::{Attention, KeyValue};
pub use config::{Activation, QFormerConfig, QFormerError};
pub use encoder::QFormer;
pub use layer::{Image, Layer};
pub use mask::TextMask;
pub use neck::VisionNeck;
pub use residual::ResidualOutput;
pub use shared::{ImageKeys, QueryStates};
pub use text::{QFormerTextConfig, TextEmbeddings};
