//! The feature cache: what a frozen image encoder makes of the images, computed once.
//!
//! A frozen encoder gives the same embeddings in every epoch. With `[features]` a run computes them
//! before its first step (each image through a fixed number of views) and trains from them; in f32
//! the losses are those of the same run without the cache, bit for bit.

mod build;
mod file;
mod store;

use std::path::PathBuf;

use burn::tensor::DType;
use serde::{Deserialize, Serialize};

pub use build::{Cached, Encoder, cache};
pub use store::FeatureStore;

/// The table `[features]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesConfig {
    /// Where the embeddings are kept.
    pub cache: CacheKind,
    /// Views of each image, drawn by `data.augmentation` and shown in turn; 1 without it.
    #[serde(default = "one")]
    pub views: usize,
    /// Their precision in the cache.
    #[serde(default = "full")]
    pub dtype: FeatureDType,
    /// The folder of `cache = "disk"`, which many runs may share; without it the run's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

fn one() -> usize {
    1
}

fn full() -> FeatureDType {
    FeatureDType::F32
}

/// Where embeddings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheKind {
    /// Nowhere: the encoder runs at every step, on the same fixed views.
    None,
    /// In memory; a resumed run computes them again.
    Memory,
    /// In a file that later runs find by its name.
    Disk,
}

/// The precision of kept embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureDType {
    /// 32 bits: exact.
    F32,
    /// 16 bits with the range of 32: two decimal digits.
    Bf16,
    /// 16 bits: three decimal digits.
    F16,
}

impl FeatureDType {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// The word of the safetensors format.
    fn word(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
        }
    }
}
