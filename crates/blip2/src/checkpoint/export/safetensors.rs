//! Safetensors files, written tensor by tensor.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use serde_json::{Map, Value, json};

use super::entries::Entry;
use crate::Blip2Error;
use crate::checkpoint::Progress;

/// A shard holds no more, unless one tensor does: transformers' limit before version 5.
const MAX_SHARD: usize = 5_000_000_000;

/// Writes `entries` to `folder` as one file, or as shards and their index.
pub(super) fn write_shards(
    entries: Vec<Entry>,
    folder: &Path,
    progress: &Progress,
) -> Result<Vec<PathBuf>, Blip2Error> {
    write_shards_of(entries, folder, MAX_SHARD, progress)
}

fn write_shards_of(
    entries: Vec<Entry>,
    folder: &Path,
    max_shard: usize,
    progress: &Progress,
) -> Result<Vec<PathBuf>, Blip2Error> {
    let total: usize = entries.iter().map(Entry::byte_len).sum();
    let mut shards: Vec<Vec<Entry>> = vec![Vec::new()];
    let mut size = 0;
    for entry in entries {
        let bytes = entry.byte_len();
        if size > 0 && size + bytes > max_shard {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(entry);
        }
    }
    if let [_] = shards.as_slice() {
        let path = folder.join("model.safetensors");
        write(shards.remove(0), &path, progress)?;
        return Ok(vec![path]);
    }
    let (count, mut files, mut map) = (shards.len(), Vec::new(), Map::new());
    let mut before = 0;
    for (index, shard) in shards.into_iter().enumerate() {
        let name = format!("model-{:05}-of-{count:05}.safetensors", index + 1);
        for entry in &shard {
            map.insert(entry.key.clone(), Value::from(name.clone()));
        }
        let bytes: usize = shard.iter().map(Entry::byte_len).sum();
        let tell = progress.clone();
        let of_all: Progress =
            std::sync::Arc::new(move |done, _| tell(before as u64 + done, total as u64));
        let path = folder.join(name);
        write(shard, &path, &of_all)?;
        before += bytes;
        files.push(path);
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    let path = folder.join("model.safetensors.index.json");
    std::fs::write(&path, format!("{index:#}\n")).map_err(Blip2Error::io(&path))?;
    files.push(path);
    Ok(files)
}

/// Writes one file. It appears whole or not at all.
pub(super) fn write(
    entries: Vec<Entry>,
    path: &Path,
    progress: &Progress,
) -> Result<(), Blip2Error> {
    write_noted(entries, &[], path, progress)
}

/// As [`write()`], with `notes` in the header.
pub(super) fn write_noted(
    entries: Vec<Entry>,
    notes: &[(&str, String)],
    path: &Path,
    progress: &Progress,
) -> Result<(), Blip2Error> {
    let io = |path: &Path| Blip2Error::io(path.to_path_buf());
    let mut header = Map::new();
    // PyTorch's libraries look for this.
    let mut metadata = json!({"format": "pt"});
    for (name, text) in notes {
        metadata[*name] = json!(text);
    }
    header.insert("__metadata__".into(), metadata);
    let mut offset = 0;
    for entry in &entries {
        let end = offset + entry.byte_len();
        let info = json!({
            "dtype": dtype(entry, path)?,
            "shape": entry.shape,
            "data_offsets": [offset, end],
        });
        header.insert(entry.key.clone(), info);
        offset = end;
    }
    let mut header = Value::Object(header).to_string();
    // The data begin at a multiple of eight.
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let temporary = path.with_extension("safetensors.tmp");
    let file = File::create(&temporary).map_err(io(&temporary))?;
    let mut writer = BufWriter::new(file);
    let mut write = |bytes: &[u8]| writer.write_all(bytes).map_err(io(&temporary));
    write(&(header.len() as u64).to_le_bytes())?;
    write(header.as_bytes())?;
    let mut done = 0;
    for entry in &entries {
        let bytes = (entry.read)()?;
        write(&bytes)?;
        done += bytes.len();
        progress(done as u64, offset as u64);
    }
    let file = writer
        .into_inner()
        .map_err(|error| io(&temporary)(error.into_error()))?;
    file.sync_all().map_err(io(&temporary))?;
    std::fs::rename(&temporary, path).map_err(io(path))
}

fn dtype(entry: &Entry, path: &Path) -> Result<&'static str, Blip2Error> {
    Ok(match entry.dtype {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        other => {
            return Err(Blip2Error::DType {
                path: path.to_path_buf(),
                key: entry.key.clone(),
                found: format!("{other:?}"),
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::checkpoint::Source;

    #[test]
    fn shards_are_cut_at_the_limit_and_read_back_whole() {
        let entries: Vec<Entry> = (0u8..5)
            .map(|index| Entry {
                key: format!("vision_model.tensor{index}"),
                shape: vec![2, 2],
                dtype: DType::F32,
                read: Arc::new(move || Ok(vec![index; 16])),
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        let progress: Progress = Arc::new(move |done, total| {
            tell.lock().unwrap().push((done, total));
        });
        let files = write_shards_of(entries, folder.path(), 40, &progress).unwrap();
        assert_eq!(files.len(), 4, "two, two and one tensor, and the index");
        assert_eq!(told.lock().unwrap().last(), Some(&(80, 80)));
        let source = Source::open(folder.path()).unwrap();
        for (index, tensor) in source.tensors().values().enumerate() {
            assert_eq!(tensor.read().unwrap(), [index as u8; 16]);
        }
        assert_eq!(source.tensors().len(), 5);
    }
}
