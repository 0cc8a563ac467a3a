//! Shards as files: what they were when the run began, and the few that are open.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::DataError;

/// Files that stay open; a window lies in a few, and systems allow a process some hundreds.
const MAX_OPEN: usize = 64;

/// A tar file.
#[derive(Debug, PartialEq, Eq)]
pub struct Shard {
    /// Where it lies.
    pub path: PathBuf,
    /// In bytes, when the run began.
    pub size: u64,
}

impl Shard {
    /// The file at `path` as it is now.
    ///
    /// # Errors
    ///
    /// If it can't be looked at, or is no file.
    pub(crate) fn at(path: PathBuf) -> Result<Self, DataError> {
        let metadata = fs::metadata(&path).map_err(DataError::io(&path))?;
        if !metadata.is_file() {
            return Err(DataError::Shard {
                shard: path,
                place: "the path".into(),
                reason: "is no file".into(),
            });
        }
        let size = metadata.len();
        Ok(Self { path, size })
    }

    /// The file's own name.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// The shards that were read last, open.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles(Mutex<VecDeque<(Arc<Shard>, Arc<File>)>>);

impl OpenFiles {
    /// `shard`, opened.
    ///
    /// # Errors
    ///
    /// If it can't be opened, or has another size than when the run began.
    pub fn open(&self, shard: &Arc<Shard>) -> Result<Arc<File>, DataError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = open.iter().position(|(known, _)| Arc::ptr_eq(known, shard))
            && let Some(entry) = open.remove(place)
        {
            let file = entry.1.clone();
            open.push_front(entry);
            return Ok(file);
        }
        let file = File::open(&shard.path).map_err(DataError::io(&shard.path))?;
        let now = file.metadata().map_err(DataError::io(&shard.path))?.len();
        if now != shard.size {
            return Err(DataError::ShardChanged {
                shard: shard.path.clone(),
                what: "its size in bytes",
                was: shard.size,
                now,
            });
        }
        let file = Arc::new(file);
        open.push_front((shard.clone(), file.clone()));
        open.truncate(MAX_OPEN);
        Ok(file)
    }
}
