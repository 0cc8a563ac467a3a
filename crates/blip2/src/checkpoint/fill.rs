//! From files into modules: tensor by tensor, so that loading takes little more memory than the
//! weights themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use blip2_kernels::MatricesTo;
use blip2_vision::interpolate_position_embedding;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bytes, DType, Device, FloatDType, Tensor, TensorData};
use burn_store::burn_pack;
use burn_store::{ModuleSnapshot, bridge};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::names::{Address, Part};
use super::weights::{Weight, Weights};
use crate::Blip2Error;

/// What is told while weights are read: bytes done, bytes in all.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// A parameter that a module has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The shape in torch's layout.
    pub shape: Vec<usize>,
    /// Burn's layout is the other way round: the weight of a linear layer.
    pub transposed: bool,
}

/// The parameters of `module` by path, without making the ones that are not made yet.
pub fn expected<M: Module>(module: &M) -> BTreeMap<String, Expected> {
    let mut list = Listing::default();
    module.visit(&mut list);
    list.found
}

#[derive(Default)]
struct Listing {
    path: Vec<String>,
    containers: Vec<String>,
    found: BTreeMap<String, Expected>,
}

impl ModuleVisitor for Listing {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.to_string());
        self.containers.push(container.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let mut shape = param.lazy_shape().to_vec();
        let linear = self
            .containers
            .last()
            .is_some_and(|name| name == "Struct:Linear");
        let transposed = linear && D == 2;
        if transposed {
            shape.reverse();
        }
        self.found
            .insert(self.path.join("."), Expected { shape, transposed });
    }
}

/// Gives `module`, which is `part` of a captioner, its weights. Matrices are kept as
/// `matrices` says, everything else (biases, norms, queries, positions) in f32.
///
/// # Errors
///
/// Missing weights, other shapes, unreadable or non-finite values. The module is not used then.
pub fn fill<M: Module>(
    module: M,
    part: Part,
    weights: &Weights,
    matrices: Precision,
    progress: Option<&Meter>,
    device: &Device,
) -> Result<M, Blip2Error> {
    let missing: Vec<Address> = expected(&module)
        .keys()
        .map(|path| Address {
            part,
            path: path.clone(),
        })
        .filter(|address| !weights.tensors.contains_key(address))
        .collect();
    if !missing.is_empty() {
        return Err(Blip2Error::Missing {
            path: weights.path.to_path_buf(),
            keys: missing.iter().map(|address| weights.key(address)).collect(),
        });
    }
    fill_known(module, part, weights, matrices, progress, device)
}

/// As [`fill`]; what `weights` lack keeps its value.
///
/// # Errors
///
/// As [`fill`], but for missing weights.
pub fn fill_known<M: Module>(
    mut module: M,
    part: Part,
    weights: &Weights,
    matrices: Precision,
    progress: Option<&Meter>,
    device: &Device,
) -> Result<M, Blip2Error> {
    let parameters = expected(&module);
    // What a closure of the store can't hand back through it.
    let failure: Arc<Mutex<Option<Blip2Error>>> = Arc::default();
    let mut tensors = Vec::with_capacity(parameters.len());
    for (path, parameter) in &parameters {
        let Some(weight) = weights.get(part, path) else {
            continue;
        };
        let weight = fit(path, weight, parameter, part, device)?;
        let dtype = match parameter.shape.len() {
            2 => matrices.of(weight.dtype),
            _ => DType::F32,
        };
        let mut burn_shape = parameter.shape.clone();
        if parameter.transposed {
            burn_shape.reverse();
        }
        let turn = parameter.transposed && !weight.burn_layout;
        let (failure, meter) = (failure.clone(), progress.cloned());
        let shape = burn_shape.clone();
        let read = move || {
            let data = weight.read(dtype).map_err(|error| {
                let reason = error.to_string();
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                burn_pack::Error::ValidationError(reason)
            })?;
            if let Some(meter) = &meter {
                meter.add(data.len());
            }
            let bytes = match turn {
                true => transposed(&data, dtype, shape[0]),
                false => Bytes::from_bytes_vec(data),
            };
            Ok(TensorData::from_bytes(bytes, shape.clone(), dtype))
        };
        let (name, shape) = (path.clone(), burn_shape.into());
        tensors.push(bridge::deferred(name, dtype, shape, None, read));
    }
    let result = module.apply(tensors, None, None, true);
    if let Some(error) = failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        return Err(error);
    }
    match result.errors.first() {
        None => Ok(module),
        Some(error) => Err(Blip2Error::Format {
            path: weights.path.to_path_buf(),
            reason: format!("{}: {error}", part.name()),
        }),
    }
}

/// The precision in which the matrices of a module are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits, whatever the file has.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// As the file has them; f64 becomes f32.
    Stored,
}

impl Precision {
    /// The element type for weights that the file has as `stored`.
    pub fn of(self, stored: DType) -> DType {
        match (self, stored) {
            (Self::F16, _) | (Self::Stored, DType::F16) => DType::F16,
            (Self::BF16, _) | (Self::Stored, DType::BF16) => DType::BF16,
            _ => DType::F32,
        }
    }
}

impl Precision {
    /// `module`, which comes from no file, with its matrices in this precision.
    pub fn apply<M: Module>(self, module: M) -> M {
        match self {
            Self::F32 | Self::Stored => module,
            Self::F16 => module.map(&mut MatricesTo(FloatDType::F16)),
            Self::BF16 => module.map(&mut MatricesTo(FloatDType::BF16)),
        }
    }
}

/// Counts the bytes of a load and tells them on.
#[derive(Clone)]
pub struct Meter {
    total: u64,
    done: Arc<Mutex<u64>>,
    tell: Progress,
}

impl Meter {
    /// Counts up to `total`.
    pub fn new(total: u64, tell: Progress) -> Self {
        let done = Arc::default();
        Self { total, done, tell }
    }

    fn add(&self, bytes: usize) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += bytes as u64;
        (self.tell)(*done, self.total.max(*done));
    }
}

/// Checks the shape of `weight`, and makes positions for another image size.
fn fit(
    path: &str,
    weight: &Weight,
    parameter: &Expected,
    part: Part,
    device: &Device,
) -> Result<Weight, Blip2Error> {
    let mut expected = parameter.shape.clone();
    if weight.burn_layout && parameter.transposed {
        expected.reverse();
    }
    if weight.shape == expected {
        return Ok(weight.clone());
    }
    // CLIP has no leading dimensions on class token and positions.
    let leading = expected.len().saturating_sub(weight.shape.len());
    let same_but_ones = expected[leading..] == weight.shape[..]
        && expected[..leading].iter().all(|&side| side == 1);
    if same_but_ones {
        return Ok(weight.reshaped(expected));
    }
    if part == Part::VisionBackbone
        && path == "position_embedding"
        && let Some(weight) = interpolated(weight, &expected, device)
    {
        return Ok(weight);
    }
    Err(Blip2Error::Shape {
        path: weight.file.to_path_buf(),
        key: weight.key.clone(),
        expected,
        found: weight.shape.clone(),
    })
}

/// Positions of another square of patches, if both are squares with a class position.
fn interpolated(weight: &Weight, expected: &[usize], device: &Device) -> Option<Weight> {
    let (tokens, width) = match weight.shape[..] {
        [1, tokens, width] | [tokens, width] => (tokens, width),
        _ => return None,
    };
    let &[1, new_tokens, new_width] = expected else {
        return None;
    };
    let side = new_tokens.checked_sub(1)?.isqrt();
    let square = |tokens: usize| tokens > 1 && (tokens - 1).isqrt().pow(2) == tokens - 1;
    if width != new_width || !square(tokens) || !square(new_tokens) {
        return None;
    }
    let of_read = weight.clone();
    let device = device.clone().inner();
    let read = move || {
        let bytes = Bytes::from_bytes_vec(of_read.read(DType::F32)?);
        let data = TensorData::from_bytes(bytes, [1, tokens, width], DType::F32);
        let positions = Tensor::<3>::from_data(data, (&device, FloatDType::F32.into()));
        let positions = interpolate_position_embedding(positions, (side, side))?;
        Ok(positions.into_data().into_bytes().to_vec())
    };
    let (file, key) = (weight.file.clone(), weight.key.clone());
    Some(Weight::new(file, key, DType::F32, expected.to_vec(), read))
}

/// A row-major matrix of `columns` columns, transposed.
pub(super) fn transposed(bytes: &[u8], dtype: DType, columns: usize) -> Bytes {
    // Burn copies bytes that are not aligned for their type, so they are made as numbers.
    match dtype.size() {
        2 => Bytes::from_elems(transposed_as(bytes, columns, u16::from_le_bytes)),
        8 => Bytes::from_elems(transposed_as(bytes, columns, u64::from_le_bytes)),
        _ => Bytes::from_elems(transposed_as(bytes, columns, u32::from_le_bytes)),
    }
}

/// Works tile by tile through a small buffer, for the elements of a column are far apart in memory.
fn transposed_as<const SIZE: usize, E: Copy + Default + Send>(
    bytes: &[u8],
    columns: usize,
    number: impl Fn([u8; SIZE]) -> E + Sync,
) -> Vec<E> {
    const TILE: usize = 32;
    let (elements, _) = bytes.as_chunks::<SIZE>();
    let rows = elements.len() / columns.max(1);
    let mut target = vec![E::default(); elements.len()];
    let strips = target.par_chunks_mut((rows * TILE).max(1)).enumerate();
    strips.for_each(|(strip, target)| {
        let first = strip * TILE;
        let width = TILE.min(columns - first);
        let mut tile = [[E::default(); TILE]; TILE];
        for top in (0..rows).step_by(TILE) {
            let height = TILE.min(rows - top);
            for (row, tile) in tile.iter_mut().enumerate().take(height) {
                let source = &elements[(top + row) * columns + first..][..width];
                for (value, element) in tile.iter_mut().zip(source) {
                    *value = number(*element);
                }
            }
            for column in 0..width {
                let target = &mut target[column * rows + top..][..height];
                for (value, tile) in target.iter_mut().zip(&tile) {
                    *value = tile[column];
                }
            }
        }
    });
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_any_size_are_transposed() {
        let (rows, columns) = (70, 33);
        let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
        for dtype in [DType::F16, DType::F32, DType::F64] {
            let data = TensorData::new(values.clone(), [rows, columns]).convert_dtype(dtype);
            let bytes = transposed(data.as_bytes(), dtype, columns);
            let turned = TensorData::from_bytes(bytes, [columns, rows], dtype);
            let turned: Vec<f32> = turned.convert_dtype(DType::F32).try_to_vec().unwrap();
            // f16 holds whole numbers up to 2048; beyond, both sides round alike.
            let values: Vec<f32> = data.convert_dtype(DType::F32).try_to_vec().unwrap();
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(turned[column * rows + row], values[row * columns + column]);
                }
            }
        }
    }
}
