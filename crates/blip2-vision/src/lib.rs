//! Vision transformers for BLIP-2: EVA-ViT and CLIP ViT.
//!
//! [`VisionConfig`] → [`VisionConfig::init`] → [`VisionTransformer::forward`] gives the last hidden
//! state without a final norm: BLIP-2 norms it in a LayerNorm of its own (`ln_vision`).

mod attention;
mod block;
mod config;
mod drop_path;
mod encoder;
pub mod keymap;
mod patch_embed;
mod pos_embed;
pub mod presets;

pub use attention::Attention;
pub use block::{Activation, Block, Mlp};
pub use config::{VisionConfig, VisionError};
pub use drop_path::DropPath;
pub use encoder::VisionTransformer;
pub use patch_embed::PatchEmbed;
pub use pos_embed::interpolate_position_embedding;
