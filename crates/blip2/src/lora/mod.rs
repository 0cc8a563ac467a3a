//! LoRA: small trained matrices beside frozen ones, by config, in PEFT's words and files.
//!
//! `W` becomes `W + scale · a · b` with `a` `[inputs, r]` and `b` `[r, outputs]`; only those learn. A
//! captioner gets adapters from its recipe ([`Blip2Caption::with_lora`](crate::Blip2Caption::with_lora)) or
//! from a folder that PEFT or this program wrote ([`Adapter::read`],
//! [`Blip2Caption::with_adapter`](crate::Blip2Caption::with_adapter)); [`Adapter::of`] takes them out again.
//!
//! Reference: LoRA (arXiv 2106.09685), QLoRA (arXiv 2305.14314); PEFT 0.21.

mod adapter;
mod attach;
mod config;
mod factors;
mod fingerprint;
mod layers;
mod merge;
mod peft;

pub use adapter::{Adapter, LowRank};
pub use config::{LoraConfig, LoraParts, Quantization, Targets};
pub use layers::{AdaptedLayer, LinearLayer, compacted};
