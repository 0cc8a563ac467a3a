//! The data sets of a stream.

use std::path::PathBuf;
use std::sync::Arc;

use super::files::Shard;
use super::pattern::expand;
use super::shards::list;
use crate::DataError;
use crate::sample::Sample;
use crate::skips::SkipLog;

/// One data set of a stream.
#[derive(Debug, Clone)]
pub struct Source {
    pub(super) name: String,
    pub(super) weight: f64,
    pub(super) data: SourceData,
}

#[derive(Debug, Clone)]
pub(super) enum SourceData {
    Shards {
        list: Vec<Arc<Shard>>,
        caption_field: Option<String>,
    },
    Samples(Arc<Vec<Sample>>),
}

impl Source {
    /// The tar shards that `patterns` name: braces (`{00000..00331}`, `{a,b}`) and wildcards (`*`,
    /// `?`). Captions come from `.txt` entries, or else from the field `caption` of `.json` entries; with
    /// `caption_field` from that field of `.json` entries alone.
    ///
    /// # Errors
    ///
    /// A pattern that names nothing or the same shard twice, and a shard that is not there, unless
    /// `skips` leaves it out.
    pub fn shards(
        name: &str,
        weight: f64,
        patterns: &[PathBuf],
        caption_field: Option<String>,
        skips: &SkipLog,
    ) -> Result<Self, DataError> {
        let mut paths = Vec::new();
        for pattern in patterns {
            paths.extend(expand(pattern)?);
        }
        let list = list(paths, skips)?;
        if list.is_empty() {
            return Err(DataError::Config {
                field: format!("data.stream.sources.{name}.shards"),
                reason: "names no shard that can be read".into(),
            });
        }
        Ok(Self {
            name: name.to_string(),
            weight,
            data: SourceData::Shards {
                list,
                caption_field,
            },
        })
    }

    /// Images that an annotation file lists; their captions are learned as they are.
    pub fn samples(name: &str, weight: f64, samples: Arc<Vec<Sample>>) -> Self {
        Self {
            name: name.to_string(),
            weight,
            data: SourceData::Samples(samples),
        }
    }

    /// Its shards in the order of the list; none for an annotation file.
    pub fn list(&self) -> &[Arc<Shard>] {
        match &self.data {
            SourceData::Shards { list, .. } => list,
            SourceData::Samples(_) => &[],
        }
    }
}
