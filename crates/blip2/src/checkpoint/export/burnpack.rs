//! Burn's own files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn_store::burn_pack;

use super::entries::Entry;
use crate::Blip2Error;
use crate::checkpoint::Progress;

/// Writes one file; it appears whole or not at all.
pub(super) fn write(
    entries: Vec<Entry>,
    path: &Path,
    progress: &Progress,
) -> Result<PathBuf, Blip2Error> {
    let total: usize = entries.iter().map(Entry::byte_len).sum();
    let done = Arc::new(Mutex::new(0));
    let tensors = entries
        .into_iter()
        .map(|entry| {
            let (read, bytes) = (entry.read.clone(), entry.byte_len());
            let (progress, done) = (progress.clone(), done.clone());
            let provider = move || {
                let data =
                    read().map_err(|error| burn_pack::Error::ValidationError(error.to_string()))?;
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                *done += bytes;
                progress(*done as u64, total as u64);
                Ok(burn::tensor::Bytes::from_bytes_vec(data))
            };
            let Entry {
                key, shape, dtype, ..
            } = entry;
            let shape: burn::tensor::Shape = shape.into();
            burn_pack::Tensor::deferred(key, dtype, shape, None, bytes, provider)
        })
        .collect();
    burn_pack::Writer::new(tensors)
        .auto_extension(false)
        .write_to_file(path)
        .map_err(|error| Blip2Error::Format {
            path: path.to_path_buf(),
            reason: format!("can't be written: {error}"),
        })?;
    Ok(path.to_path_buf())
}
