//! The table `[data.stream]`.

use std::path::PathBuf;

use blip2_data::annotations::Format;
use serde::{Deserialize, Serialize};

use super::{SplitConfig, TrainConfig};

/// Data sets in a weighted mixture, read as a stream. It goes on from epoch to epoch: item i of
/// epoch e, counted from 1, is position (e − 1) · `epoch_samples` + i.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// What counts as an epoch: after so many samples come validation, scores and a checkpoint.
    pub epoch_samples: usize,
    /// So many samples that follow each other are put in a random order; shards too come in another
    /// order in each pass. Their places are in memory, not their pixels.
    pub shuffle_window: usize,
    /// The data sets.
    pub sources: Vec<StreamSourceConfig>,
}

/// One data set of a stream: tar shards, or an annotation file and an image folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSourceConfig {
    /// Its name in messages.
    pub name: String,
    /// Its part of the stream, in proportion to the weights of all.
    pub weight: f64,
    /// Tar files: a pattern (`cc3m/{00000..00331}.tar`, `laion/*.tar`) or a list of patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<ShardPatterns>,
    /// The field of a sample's `.json` that holds its caption; without it the `.txt`, or else the
    /// field `caption`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_field: Option<String>,
    /// In the place of `shards`: an annotation file, as in a split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<PathBuf>,
    /// The folder that the annotation file's names are relative to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// The annotation file's format, where it can't be told from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The split inside a Karpathy file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

/// One pattern or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be a path or a list of paths")]
pub enum ShardPatterns {
    /// One.
    One(PathBuf),
    /// Several.
    Many(Vec<PathBuf>),
}

impl ShardPatterns {
    /// All of them.
    pub fn all(&self) -> &[PathBuf] {
        match self {
            Self::One(pattern) => std::slice::from_ref(pattern),
            Self::Many(patterns) => patterns,
        }
    }
}

impl StreamSourceConfig {
    /// The annotation file and its folder, where there are any.
    pub fn as_split(&self) -> Option<SplitConfig> {
        Some(SplitConfig {
            name: Some(self.name.clone()),
            annotations: self.annotations.clone()?,
            images: self.images.clone()?,
            format: self.format,
            limit: None,
            split: self.split.clone(),
        })
    }

    fn validate(&self, field: &str) -> Result<(), String> {
        let of_split = [
            ("annotations", self.annotations.is_some()),
            ("images", self.images.is_some()),
            ("format", self.format.is_some()),
            ("split", self.split.is_some()),
        ];
        let given = of_split.into_iter().find(|(_, given)| *given);
        match (&self.shards, given) {
            (Some(_), Some((name, _))) => {
                return Err(format!("field `{field}.{name}` does not go with `shards`"));
            }
            (None, _) if self.as_split().is_none() => {
                return Err(format!(
                    "field `{field}`: set `shards`, or `annotations` and `images`"
                ));
            }
            (None, _) if self.caption_field.is_some() => {
                return Err(format!("field `{field}.caption_field` goes with `shards`"));
            }
            _ => {}
        }
        if !(self.weight > 0.0 && self.weight.is_finite()) {
            let weight = self.weight;
            return Err(format!(
                "field `{field}.weight` is {weight}; it must be above 0"
            ));
        }
        Ok(())
    }
}

impl StreamConfig {
    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// A message that names the field.
    pub fn validate(&self, train: &TrainConfig) -> Result<(), String> {
        for (field, value) in [
            ("epoch_samples", self.epoch_samples),
            ("shuffle_window", self.shuffle_window),
            ("sources", self.sources.len()),
        ] {
            if value == 0 {
                return Err(format!(
                    "field `data.stream.{field}` must not be 0 or empty"
                ));
            }
        }
        if train.drop_last && !self.epoch_samples.is_multiple_of(train.batch_size) {
            return Err(format!(
                "field `data.stream.epoch_samples` is {}, no multiple of `train.batch_size` ({}): \
                 with `train.drop_last` the samples between two epochs would be lost",
                self.epoch_samples, train.batch_size
            ));
        }
        for (index, source) in self.sources.iter().enumerate() {
            source.validate(&format!("data.stream.sources[{index}]"))?;
            if self.sources[..index]
                .iter()
                .any(|other| other.name == source.name)
            {
                let name = &source.name;
                return Err(format!(
                    "field `data.stream.sources[{index}].name`: `{name}` is taken"
                ));
            }
        }
        Ok(())
    }
}
