//! The tables `[data]` and `[data.…]`.

use std::path::PathBuf;

use blip2_data::annotations::{Format, OnError};
use blip2_data::batch::CaptionChoice;
use blip2_data::cleaning::CaptionCleaning;
use blip2_data::transforms::AugmentationConfig;
use serde::{Deserialize, Serialize};

use super::StreamConfig;
use crate::RunError;

/// Where the data lie and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// `fail` at the first image or annotation that can't be used, or `skip`, count and list it.
    #[serde(default = "fail")]
    pub on_error: OnError,
    /// Threads that read ahead.
    pub num_workers: usize,
    /// Which captions of an image an epoch shows.
    pub captions: CaptionChoice,
    /// How captions are cleaned before they are learned; without it they are learned as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_cleaning: Option<CaptionCleaning>,
    /// How images of the train split vary; without it they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<AugmentationConfig>,
    /// The images to learn from; or `stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<SplitConfig>,
    /// The images to learn from as a stream that is never listed, in the place of `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamConfig>,
    /// The images that choose the best checkpoint.
    pub val: SplitConfig,
    /// The images of the final scores, each split with its `name`.
    #[serde(default)]
    pub test: Vec<SplitConfig>,
    /// Makes the built-in data set in this folder if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emoji_scenes: Option<PathBuf>,
}

impl DataConfig {
    /// The train split, for what can't learn from a stream.
    ///
    /// # Errors
    ///
    /// If there is a stream in its place.
    pub fn train_split(&self) -> Result<&SplitConfig, RunError> {
        let missing = || RunError::Usage("the table `[data.train]` is missing".into());
        self.train.as_ref().ok_or_else(missing)
    }
}

fn fail() -> OnError {
    OnError::Fail
}

/// One split: an annotation file and an image folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// The split's name in scores and reports; needed for test splits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// COCO captions JSON, Karpathy JSON, a list as LAVIS has it, or JSONL.
    pub annotations: PathBuf,
    /// The folder that file names are relative to.
    pub images: PathBuf,
    /// The format, where it can't be told from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Uses the first so many images alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The split inside a Karpathy file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}
