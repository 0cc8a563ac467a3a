//! One module to and from one safetensors file under foreign names.

use std::path::Path;

use ::safetensors::tensor::{Dtype, SafeTensors, TensorView};
use burn::module::Module;
use burn::tensor::{Bytes, DType, TensorData};
use burn_store::{
    BurnToPyTorchAdapter, ChainAdapter, FloatCastAdapter, ModuleSnapshot, PyTorchToBurnAdapter,
    bridge,
};

use crate::Blip2Error;

/// The precision of written weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsDType {
    /// 32 bits, exact.
    F32,
    /// 16 bits: half the size, about three decimal digits.
    F16,
}

/// Loads every weight of `module` from `path`, whose keys `rename` turns into the module's names
/// (PyTorch's layout: linear weights are `[out, in]`). Half precision becomes f32.
///
/// # Errors
///
/// A broken file, or any key that is missing, unexpected (`rename` gives none) or of another shape.
pub fn read_weights<M: Module>(
    mut module: M,
    path: &Path,
    rename: impl Fn(&str) -> Option<String>,
) -> Result<M, Blip2Error> {
    let bytes = std::fs::read(path).map_err(Blip2Error::io(path))?;
    let format = |reason: String| Blip2Error::Format {
        path: path.to_path_buf(),
        reason,
    };
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| format(format!("is not a whole safetensors file: {error}")))?;
    let (mut tensors, mut unexpected) = (Vec::new(), Vec::new());
    for (key, view) in file.iter() {
        let Some(name) = rename(key) else {
            unexpected.push(key.to_string());
            continue;
        };
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(format(format!(
                    "`{key}` is {other:?}; weights must be F32, F16 or BF16"
                )));
            }
        };
        let data = TensorData::from_bytes(
            Bytes::from_bytes_vec(view.data().to_vec()),
            view.shape().to_vec(),
            dtype,
        );
        tensors.push(bridge::from_data(data, name, None));
    }
    let adapter = ChainAdapter::new(PyTorchToBurnAdapter, FloatCastAdapter::to(DType::F32));
    let result = module.apply(tensors, None, Some(Box::new(adapter)), true);
    let mut problems: Vec<String> = result.errors.iter().map(ToString::to_string).collect();
    unexpected.extend(result.unused.iter().map(ToString::to_string));
    let missing = result.missing.iter().map(|(name, _)| name.to_string());
    for (what, mut keys) in [
        ("missing", missing.collect::<Vec<_>>()),
        ("unexpected", unexpected),
    ] {
        if !keys.is_empty() {
            keys.sort_unstable();
            problems.push(format!("{what}: {}", keys.join(", ")));
        }
    }
    if problems.is_empty() {
        Ok(module)
    } else {
        Err(Blip2Error::Weights {
            path: path.to_path_buf(),
            reason: problems.join("; "),
        })
    }
}

/// Writes every weight of `module` to `path` in PyTorch's layout, under the names that `rename`
/// gives. The file appears whole or not at all.
///
/// # Errors
///
/// If the file can't be written.
pub fn write_weights<M: Module>(
    module: &M,
    path: &Path,
    rename: impl Fn(&str) -> String,
    dtype: WeightsDType,
) -> Result<(), Blip2Error> {
    let format = |reason: String| Blip2Error::Format {
        path: path.to_path_buf(),
        reason,
    };
    let (burn_dtype, dtype) = match dtype {
        WeightsDType::F32 => (DType::F32, Dtype::F32),
        WeightsDType::F16 => (DType::F16, Dtype::F16),
    };
    let adapter = ChainAdapter::new(BurnToPyTorchAdapter, FloatCastAdapter::to(burn_dtype));
    let mut weights = Vec::new();
    for tensor in module.collect(None, Some(Box::new(adapter)), true) {
        let (name, _, shape, _, bytes) = tensor
            .into_parts()
            .map_err(|error| format(error.to_string()))?;
        weights.push((rename(&name), shape.to_vec(), bytes));
    }
    let views = weights
        .iter()
        .map(|(name, shape, bytes)| {
            TensorView::new(dtype, shape.clone(), bytes)
                .map(|view| (name.as_str(), view))
                .map_err(|error| format(error.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let metadata = [("format".to_string(), "pt".to_string())].into();
    let bytes = ::safetensors::serialize(views, Some(metadata))
        .map_err(|error| format(error.to_string()))?;
    let temporary = path.with_extension("safetensors.tmp");
    std::fs::write(&temporary, bytes).map_err(Blip2Error::io(&temporary))?;
    std::fs::rename(&temporary, path).map_err(Blip2Error::io(path))
}
