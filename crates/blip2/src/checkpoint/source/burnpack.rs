//! Burn's own files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn_store::burn_pack;

use super::{StoredTensor, Values};
use crate::Blip2Error;

/// The tensors of one file, in Burn's layout.
pub(super) fn open(path: &Path) -> Result<BTreeMap<String, StoredTensor>, Blip2Error> {
    let format = |error: burn_pack::Error| Blip2Error::Format {
        path: path.to_path_buf(),
        reason: format!("is no whole burnpack file: {error}"),
    };
    std::fs::metadata(path).map_err(Blip2Error::io(path))?;
    let reader = burn_pack::Reader::from_file_exact(path).map_err(format)?;
    let shared: Arc<Path> = path.into();
    let tensors = reader.into_tensors().map_err(format)?;
    Ok(tensors
        .into_iter()
        .map(|tensor| {
            let key = tensor.name.clone();
            let stored = StoredTensor {
                dtype: tensor.dtype,
                shape: tensor.shape.to_vec(),
                file: shared.clone(),
                key: key.clone(),
                burn_layout: true,
                values: Values::Whole(Arc::new(move || {
                    let bytes = tensor.to_bytes().map_err(|error| error.to_string())?;
                    Ok(bytes.to_vec())
                })),
            };
            (key, stored)
        })
        .collect())
}
