//! Safetensors files, of which tensors or parts of them are read.
//!
//! Files are read at positions rather than memory-mapped: a mapping would count as memory until the
//! system takes it back, and a file that is cut while it is mapped ends the process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::DType;
use safetensors::tensor::{Dtype, Metadata};

use super::positioned::Positioned;
use super::{StoredTensor, Values};
use crate::Blip2Error;

/// The largest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// An open file, what its header says, and the header's length.
fn header(path: &Path) -> Result<(File, Metadata, u64), Blip2Error> {
    let format = |reason: String| Blip2Error::Format {
        path: path.to_path_buf(),
        reason,
    };
    let mut file = File::open(path).map_err(Blip2Error::io(path))?;
    let file_len = file.metadata().map_err(Blip2Error::io(path))?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|_| format("is no safetensors file: it has no header".into()))?;
    let header_len = u64::from_le_bytes(length);
    if header_len > MAX_HEADER || 8 + header_len > file_len {
        return Err(format(format!(
            "is truncated or no safetensors file: its header would have {header_len} bytes, the \
             file has {file_len}"
        )));
    }
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header).map_err(Blip2Error::io(path))?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| format(format!("has a corrupt header: {error}")))?;
    let expected = 8 + header_len + metadata.data_len() as u64;
    if expected != file_len {
        return Err(format(format!(
            "is truncated or has been written over: its header announces {expected} bytes, the \
             file has {file_len}"
        )));
    }
    Ok((file, metadata, header_len))
}

/// A text in the header of a file; nothing of a pickle, which has none.
///
/// # Errors
///
/// As [`Source::open`](super::Source::open).
pub(crate) fn note(path: &Path, name: &str) -> Result<Option<String>, Blip2Error> {
    if path.extension().is_none_or(|ext| ext != "safetensors") {
        return Ok(None);
    }
    let (_, metadata, _) = header(path)?;
    let notes = metadata.metadata().as_ref();
    Ok(notes.and_then(|notes| notes.get(name).cloned()))
}

/// The tensors of one file.
pub(super) fn open(path: &Path) -> Result<BTreeMap<String, StoredTensor>, Blip2Error> {
    let format = |reason: String| Blip2Error::Format {
        path: path.to_path_buf(),
        reason,
    };
    let (file, metadata, header_len) = header(path)?;
    let file = Arc::new(Positioned::new(file));
    let shared: Arc<Path> = path.into();
    metadata
        .tensors()
        .into_iter()
        .map(|(key, info)| {
            let (start, end) = info.data_offsets;
            let size = end - start;
            let offset = 8 + header_len + start as u64;
            let dtype = dtype(info.dtype).ok_or_else(|| Blip2Error::DType {
                path: path.to_path_buf(),
                key: key.clone(),
                found: format!("{:?}", info.dtype),
            })?;
            if info.shape.iter().product::<usize>() * dtype.size() != size {
                return Err(format(format!(
                    "has a corrupt header: `{key}` of shape {:?} would not have {size} bytes",
                    info.shape
                )));
            }
            let tensor = StoredTensor {
                dtype,
                shape: info.shape.clone(),
                file: shared.clone(),
                key: key.clone(),
                burn_layout: false,
                values: Values::At(file.clone(), offset),
            };
            Ok((key, tensor))
        })
        .collect()
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 | Dtype::BOOL => DType::U8,
        _ => return None,
    })
}
