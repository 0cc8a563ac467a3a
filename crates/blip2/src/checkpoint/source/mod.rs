//! The tensors of a checkpoint, by their own names, none read yet.

mod burnpack;
mod pickle;
mod positioned;
mod safetensors;
mod shards;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::DType;

use self::positioned::Positioned;
pub(crate) use self::safetensors::note;
use crate::Blip2Error;
#[cfg(feature = "hub")]
pub(crate) use shards::shard_files;

/// The names a folder's weights may have, in the order of preference; an index names shards.
const WEIGHTS_FILES: [&str; 5] = [
    "model.safetensors.index.json",
    "model.safetensors",
    "model.bpk",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
];

/// How the values of a tensor are got at.
#[derive(Clone)]
enum Values {
    /// They stand in a file as they are, from this byte on.
    At(Arc<Positioned>, u64),
    /// Another reader hands out all of them.
    Whole(Arc<dyn Fn() -> Result<Vec<u8>, String> + Send + Sync>),
}

/// A tensor in a file: what the file says of it, and how to read it.
#[derive(Clone)]
pub struct StoredTensor {
    /// The element type.
    pub dtype: DType,
    /// The shape in torch's layout (linear weights are `[out, in]`).
    pub shape: Vec<usize>,
    /// The file that holds it.
    pub file: Arc<Path>,
    /// Its key in that file.
    pub key: String,
    /// Burn's layout: linear weights are `[in, out]`.
    pub burn_layout: bool,
    values: Values,
}

impl StoredTensor {
    /// Reads the values: little-endian, row-major.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or ends too early.
    pub fn read(&self) -> Result<Vec<u8>, Blip2Error> {
        match &self.values {
            Values::At(..) => {
                let mut bytes = vec![0; self.byte_len()];
                self.read_at(0, &mut bytes)?;
                Ok(bytes)
            }
            Values::Whole(read) => read().map_err(|reason| self.unreadable(reason)),
        }
    }

    /// Whether a part of the values can be read without the rest.
    pub(crate) fn in_parts(&self) -> bool {
        matches!(self.values, Values::At(..))
    }

    /// Fills `bytes` with the values that begin `start` bytes after the first.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(crate) fn read_at(&self, start: usize, bytes: &mut [u8]) -> Result<(), Blip2Error> {
        match &self.values {
            Values::At(file, offset) => file
                .read(bytes, offset + start as u64)
                .map_err(|error| self.unreadable(error.to_string())),
            Values::Whole(_) => {
                let whole = self.read()?;
                let part = whole.get(start..).and_then(|rest| rest.get(..bytes.len()));
                let part = part.ok_or_else(|| self.unreadable("ends too early".into()))?;
                bytes.copy_from_slice(part);
                Ok(())
            }
        }
    }

    fn unreadable(&self, reason: String) -> Blip2Error {
        Blip2Error::Format {
            path: self.file.to_path_buf(),
            reason: format!("`{}`: {reason}", self.key),
        }
    }

    /// Bytes of the values.
    pub fn byte_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

impl fmt::Debug for StoredTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?}", self.key, self.dtype, self.shape)
    }
}

/// The tensors of a checkpoint: one file, or the shards that an index names.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    tensors: BTreeMap<String, StoredTensor>,
}

impl Source {
    /// Reads the table of contents of the checkpoint at `path`: a `.safetensors`, `.bpk`, `.pth`,
    /// `.pt` or `.bin` file, an index of shards, or a folder with one of them. No tensor is read,
    /// and no code of a pickle is run.
    ///
    /// # Errors
    ///
    /// No weights there, a truncated or corrupt file, an index that names a shard that is not
    /// there, a pickle that calls into the system.
    pub fn open(path: &Path) -> Result<Self, Blip2Error> {
        let path = if path.is_dir() {
            weights_in(path)?
        } else {
            path.to_path_buf()
        };
        let extension = path.extension().and_then(|extension| extension.to_str());
        let tensors = match extension {
            Some("safetensors") => safetensors::open(&path)?,
            Some("bpk") => burnpack::open(&path)?,
            Some("json") => shards::open(&path)?,
            Some("pth" | "pt" | "bin" | "ckpt") => pickle::open(&path)?,
            _ => {
                // Asked for by name, so say first if it is not there.
                std::fs::metadata(&path).map_err(Blip2Error::io(&path))?;
                return Err(Blip2Error::Format {
                    path,
                    reason: "is no checkpoint: a .safetensors, .pth, .pt, .bin or .bpk file or a \
                             folder with one is needed"
                        .into(),
                });
            }
        };
        if tensors.is_empty() {
            return Err(Blip2Error::Format {
                path,
                reason: "holds no weights".into(),
            });
        }
        Ok(Self { path, tensors })
    }

    /// The same tensors, whose keys begin with `prefix`, by the rest of their keys.
    pub fn without_prefix(self, prefix: &str) -> Self {
        let tensors = self.tensors.into_iter();
        let tensors = tensors
            .filter_map(|(key, tensor)| Some((key.strip_prefix(prefix)?.to_string(), tensor)));
        Self {
            tensors: tensors.collect(),
            ..self
        }
    }

    /// The file, or the index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor by its key.
    pub fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }
}

/// The weights in a folder.
fn weights_in(folder: &Path) -> Result<PathBuf, Blip2Error> {
    for name in WEIGHTS_FILES {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let entries = std::fs::read_dir(folder).map_err(Blip2Error::io(folder))?;
    let mut others: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|ext| ext == "pth" || ext == "pt")
        })
        .collect();
    others.sort();
    match others.len() {
        1 => Ok(others.remove(0)),
        0 => Err(Blip2Error::Format {
            path: folder.to_path_buf(),
            reason: format!("holds no weights: none of {}", WEIGHTS_FILES.join(", ")),
        }),
        _ => Err(Blip2Error::Format {
            path: folder.to_path_buf(),
            reason: "holds several .pth files: name the one that you mean".into(),
        }),
    }
}
