//! PyTorch's `.pth`, `.pt` and `.bin` files. Their pickle is parsed, never run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::DType;
use pytorch_reader::{PickleValue, PytorchReader};

use super::{StoredTensor, Values};
use crate::Blip2Error;

/// Where training programs put the weights, beside their optimizer and their settings: LAVIS,
/// mmengine, others.
const NESTED: [&str; 3] = ["model", "state_dict", "model_state_dict"];

/// Modules whose functions act on the system. No checkpoint needs them.
const HOSTILE: [&str; 22] = [
    "os",
    "posix",
    "nt",
    "subprocess",
    "sys",
    "shutil",
    "socket",
    "pty",
    "platform",
    "importlib",
    "runpy",
    "code",
    "codeop",
    "ctypes",
    "commands",
    "webbrowser",
    "multiprocessing",
    "asyncio",
    "pickle",
    "marshal",
    "timeit",
    "pdb",
];

/// Builtins that run or reach code.
const HOSTILE_BUILTINS: [&str; 9] = [
    "eval",
    "exec",
    "compile",
    "getattr",
    "setattr",
    "__import__",
    "open",
    "input",
    "globals",
];

/// The tensors of one file, without the name of what they are nested in.
pub(super) fn open(path: &Path) -> Result<BTreeMap<String, StoredTensor>, Blip2Error> {
    let format = |error: pytorch_reader::PytorchError| match error {
        pytorch_reader::PytorchError::Io(source) => Blip2Error::io(path)(source),
        error => Blip2Error::Format {
            path: path.to_path_buf(),
            reason: format!("is no whole PyTorch checkpoint: {error}"),
        },
    };
    std::fs::metadata(path).map_err(Blip2Error::io(path))?;
    let contents = PytorchReader::read_pickle_data(path, None).map_err(format)?;
    if let Some(callable) = hostile(&contents) {
        return Err(Blip2Error::Hostile {
            path: path.to_path_buf(),
            callable,
        });
    }
    let nested = match &contents {
        PickleValue::Dict(entries) => NESTED
            .into_iter()
            .find(|key| matches!(entries.get(*key), Some(PickleValue::Dict(_)))),
        _ => None,
    };
    let reader = match nested {
        Some(key) => PytorchReader::with_top_level_key(path, key),
        None => PytorchReader::new(path),
    }
    .map_err(format)?;
    let shared: Arc<Path> = path.into();
    reader
        .into_tensors()
        .into_values()
        .map(|tensor| {
            let (name, dtype, shape, read) = tensor.into_parts();
            // Distributed training wraps the model and prefixes all of its names.
            let key = name.strip_prefix("module.").unwrap_or(&name).to_string();
            let dtype = self::dtype(dtype).ok_or_else(|| Blip2Error::DType {
                path: path.to_path_buf(),
                key: key.clone(),
                found: format!("{dtype:?}"),
            })?;
            let tensor = StoredTensor {
                dtype,
                shape,
                file: shared.clone(),
                key: key.clone(),
                burn_layout: false,
                values: Values::Whole(Arc::new(move || read().map_err(|error| error.to_string()))),
            };
            Ok((key, tensor))
        })
        .collect()
}

/// The first call into the system that unpickling `value` would make.
fn hostile(value: &PickleValue) -> Option<String> {
    match value {
        PickleValue::Unsupported(name) => {
            let (module, function) = name.rsplit_once('.').unwrap_or(("", name));
            let root = module.split('.').next().unwrap_or_default();
            let builtin =
                matches!(root, "builtins" | "__builtin__") && HOSTILE_BUILTINS.contains(&function);
            (builtin || HOSTILE.contains(&root)).then(|| name.clone())
        }
        PickleValue::List(values) => values.iter().find_map(hostile),
        PickleValue::Dict(entries) => entries.values().find_map(hostile),
        _ => None,
    }
}

fn dtype(dtype: pytorch_reader::DType) -> Option<DType> {
    use pytorch_reader::DType as Torch;
    Some(match dtype {
        Torch::F64 => DType::F64,
        Torch::F32 => DType::F32,
        Torch::F16 => DType::F16,
        Torch::BF16 => DType::BF16,
        Torch::I64 => DType::I64,
        Torch::I32 => DType::I32,
        Torch::I16 => DType::I16,
        Torch::I8 => DType::I8,
        Torch::U8 | Torch::Bool => DType::U8,
        _ => return None,
    })
}
