//! Language models for BLIP-2: OPT, key/value cache, generation.
//!
//! [`OptConfig`] → [`OptConfig::init`] → [`Opt`], which is a [`CausalLm`]. [`generate()`] writes
//! captions with any [`CausalLm`], from embeddings: BLIP-2 puts projected queries before the text.

mod cache;
mod causal_lm;
mod error;
pub mod generate;
pub mod opt;

pub use cache::{KvCache, LayerCache};
pub use causal_lm::CausalLm;
pub use error::LmError;
pub use generate::{GenerationConfig, Hypothesis, generate, generate_after};
pub use opt::{Opt, OptConfig};
