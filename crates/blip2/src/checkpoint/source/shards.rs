//! Checkpoints in several files, and the index that names them (`*.index.json`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;

use super::{StoredTensor, pickle, safetensors};
use crate::Blip2Error;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn read(path: &Path) -> Result<Self, Blip2Error> {
        let text = std::fs::read_to_string(path).map_err(Blip2Error::io(path))?;
        let index: Self = serde_json::from_str(&text)
            .map_err(|error| format(path)(format!("is no index of shards: {error}")))?;
        // An index comes from elsewhere: it must not point out of its folder.
        let outside = index.weight_map.values().find(|file| {
            let mut components = Path::new(file).components();
            !components.all(|component| matches!(component, Component::Normal(_)))
        });
        match outside {
            Some(file) => Err(format(path)(format!(
                "names the shard `{file}`, which is not in its folder"
            ))),
            None => Ok(index),
        }
    }

    fn files(&self) -> BTreeSet<&String> {
        self.weight_map.values().collect()
    }
}

fn format(path: &Path) -> impl Fn(String) -> Blip2Error {
    move |reason| Blip2Error::Format {
        path: path.to_path_buf(),
        reason,
    }
}

/// The files that an index names.
#[cfg(feature = "hub")]
pub(crate) fn shard_files(path: &Path) -> Result<BTreeSet<String>, Blip2Error> {
    Ok(Index::read(path)?.files().into_iter().cloned().collect())
}

/// The tensors of all shards of an index.
pub(super) fn open(path: &Path) -> Result<BTreeMap<String, StoredTensor>, Blip2Error> {
    let format = format(path);
    let index = Index::read(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut tensors = BTreeMap::new();
    for file in index.files() {
        let shard = folder.join(file);
        if !shard.is_file() {
            return Err(format(format!(
                "names the shard `{file}`, which is not there: the download is not complete"
            )));
        }
        let of_shard = match shard.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => safetensors::open(&shard)?,
            _ => pickle::open(&shard)?,
        };
        for (key, tensor) in of_shard {
            // What the index gives to another shard is that shard's.
            if index.weight_map.get(&key).is_none_or(|owner| owner == file) {
                tensors.insert(key, tensor);
            }
        }
    }
    for (key, file) in &index.weight_map {
        if !tensors.contains_key(key) {
            return Err(format(format!(
                "says that `{file}` holds `{key}`, but it does not"
            )));
        }
    }
    Ok(tensors)
}
