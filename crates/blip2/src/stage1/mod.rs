//! BLIP-2's first stage: the Q-Former learns, with text of its own, to read images.
//!
//! [`Blip2QformerConfig`] → [`Blip2QformerConfig::init`] → [`Blip2Qformer::loss`]; what it is used for
//! afterwards, features, matching and retrieval, is in [`Blip2Qformer::image_features`] and beside it.

mod config;
mod contrast;
mod features;
mod heads;
mod loss;
mod model;
mod negatives;
mod text;

pub use config::{Blip2QformerConfig, SameImage};
pub use features::{ImageFeatures, match_probability};
pub use heads::{Heads, HeadsConfig, LanguageHead};
pub use loss::Stage1Losses;
pub use model::{Blip2Qformer, Stage1Architecture};
pub(crate) use model::{Settings, Stage1Bridge, Stage1Parts};
pub use negatives::{HardNegatives, Negatives};
