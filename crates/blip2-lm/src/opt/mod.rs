//! OPT, the decoder of BLIP-2's OPT models (Zhang et al. 2022, arXiv:2205.01068).

mod attention;
mod config;
mod decoder;
pub mod keymap;
mod mask;
mod model;
pub mod presets;
mod recompute;

pub use attention::Attention;
pub use config::{Activation, OptConfig};
pub use decoder::DecoderLayer;
pub use model::Opt;
