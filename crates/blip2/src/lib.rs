//! BLIP-2 image captioning: [`Blip2Caption`] with `loss` and `predict`, its configuration, and the
//! files of its towers.
//!
//! The way of the data: images → `vision_backbone` → `ln_vision` → `multimodal_backbone` (the
//! Q-Former) → `vision_neck` → `text_backbone` (the language model) → loss or captions.
//!
//! [`stage1`] holds the model that comes before it: the Q-Former's own pre-training, features,
//! matching.

mod caption;
pub mod checkpoint;
mod config;
mod error;
#[cfg(feature = "hub")]
pub mod hub;
pub mod lora;
mod loss;
mod model;
pub mod presets;
pub mod stage1;
mod tower;

pub use config::{
    Blip2CaptionConfig, Compute, InitConfig, Recompute, TowerCompute, TowerConfig, VisionNeckKind,
};
pub use error::Blip2Error;
pub use loss::{Losses, Targets, TextBatch};
pub use model::Blip2Caption;
pub use tower::Tower;
