//! How many samples each shard holds: all that a stream must know of its past to go on anywhere.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::files::Shard;
use crate::DataError;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    source: String,
    /// The shard's place in its source's list.
    index: usize,
    shard: String,
    size: u64,
    samples: u64,
}

/// A file with a line for each shard that was once scanned to its end. Without it, or without some
/// of its lines, shards are scanned again.
#[derive(Debug, Clone, Default)]
pub(super) struct CountFile {
    path: Option<PathBuf>,
}

impl CountFile {
    /// The file at `path`, or none.
    pub fn new(path: Option<&Path>) -> Self {
        let path = path.map(Path::to_path_buf);
        Self { path }
    }

    /// What is known of the shards of `source`.
    ///
    /// # Errors
    ///
    /// A shard that has another size than when it was counted.
    pub fn read(&self, source: &str, shards: &[Arc<Shard>]) -> Result<Vec<Option<u64>>, DataError> {
        let mut counts = vec![None; shards.len()];
        let text = match self.path.as_ref().map(fs::read_to_string) {
            Some(Ok(text)) => text,
            // Scanned again.
            Some(Err(_)) | None => return Ok(counts),
        };
        // A line that a kill or a full disk cut off is no JSON.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Line>(line).ok());
        for line in lines.filter(|line| line.source == source) {
            let Some(shard) = shards
                .get(line.index)
                .filter(|shard| shard.name() == line.shard)
            else {
                // Another list of shards: the run's identity says so.
                continue;
            };
            if shard.size != line.size {
                return Err(DataError::ShardChanged {
                    shard: shard.path.clone(),
                    what: "its size in bytes",
                    was: line.size,
                    now: shard.size,
                });
            }
            counts[line.index] = Some(line.samples);
        }
        Ok(counts)
    }

    /// Notes that the shard at `index` of `source` holds `samples`.
    pub fn add(&self, source: &str, index: usize, shard: &Shard, samples: u64) {
        let Some(path) = &self.path else { return };
        let line = Line {
            source: source.to_string(),
            index,
            shard: shard.name(),
            size: shard.size,
            samples,
        };
        let append = || -> std::io::Result<()> {
            // A line break on both sides: what was cut off before must not spoil this line.
            let line = format!("\n{}\n", serde_json::to_string(&line)?);
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(line.as_bytes())
        };
        if let Err(error) = append() {
            // It costs a scan after a resume; no reason to end a run.
            tracing::error!("{}: {error}", path.display());
        }
    }
}
