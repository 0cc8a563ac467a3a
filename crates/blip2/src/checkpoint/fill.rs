//! From files into modules, through small buffers, so that loading takes little more memory than the
//! weights themselves.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use blip2_kernels::{Bits, LinearsTo, MatricesTo};
use blip2_vision::interpolate_position_embedding;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bytes, DType, Device, FloatDType, Tensor, TensorData};
use burn_store::burn_pack;
use burn_store::{ModuleSnapshot, bridge};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::names::{Address, Part};
use super::place::placed;
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
    matrices.check_on(device, "dtype")?;
    let parameters = expected(&module);
    let mut jobs = Vec::with_capacity(parameters.len());
    for (path, parameter) in &parameters {
        let Some(weight) = weights.get(part, path) else {
            continue;
        };
        let weight = fit(path, weight, parameter, part, device)?;
        let dtype = match (parameter.shape.len(), parameter.transposed) {
            (2, true) => matrices.of_on(weight.dtype, device),
            (2, false) => matrices.of_embeddings(device).of_on(weight.dtype, device),
            _ => DType::F32,
        };
        let mut shape = parameter.shape.clone();
        if parameter.transposed {
            shape.reverse();
        }
        let turn = parameter.transposed && !weight.burn_layout;
        jobs.push(Job {
            path,
            weight,
            dtype,
            shape,
            turn,
        });
    }
    let tensors = run(jobs, progress)?;
    let result = module.apply(tensors, None, None, true);
    match result.errors.first() {
        None => Ok(matrices.rounded(module)),
        Some(error) => Err(Blip2Error::Format {
            path: weights.path.to_path_buf(),
            reason: format!("{}: {error}", part.name()),
        }),
    }
}

/// A parameter that is to be read.
struct Job<'a> {
    path: &'a str,
    weight: Weight,
    dtype: DType,
    /// Burn's.
    shape: Vec<usize>,
    /// The file has the matrix the other way round.
    turn: bool,
}

impl Job<'_> {
    fn run(
        &self,
        buffer: &mut Vec<u8>,
        progress: Option<&Meter>,
    ) -> Result<burn_pack::Tensor, Blip2Error> {
        let columns = self.turn.then(|| self.shape[0]);
        let bytes = placed(&self.weight, self.dtype, columns, buffer)?;
        if let Some(meter) = progress {
            meter.add(bytes.len());
        }
        let shape = self.shape.clone();
        let data = TensorData::from_bytes(bytes, shape.clone(), self.dtype);
        // The store clones a tensor at hand with all of its bytes, one that is drawn it does not.
        let once = Mutex::new(Some(data));
        let draw = move || {
            let mut data = once.lock().unwrap_or_else(PoisonError::into_inner);
            let again = || burn_pack::Error::ValidationError("is drawn twice".into());
            data.take().ok_or_else(again)
        };
        let (name, dtype) = (self.path.to_string(), self.dtype);
        Ok(bridge::deferred(name, dtype, shape.into(), None, draw))
    }
}

/// Reads all parameters: those that go through a small buffer side by side, then, one at a time, those
/// that are in memory as a whole before they are placed.
fn run(jobs: Vec<Job>, progress: Option<&Meter>) -> Result<Vec<burn_pack::Tensor>, Blip2Error> {
    let (mut small, whole): (Vec<_>, Vec<_>) =
        jobs.into_iter().partition(|job| job.weight.in_pieces());
    // A thread that takes the largest last would leave the others waiting.
    small.sort_by_key(|job| Reverse(job.shape.iter().product::<usize>()));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut buffer = Vec::new();
        let jobs = std::iter::from_fn(|| small.get(next.fetch_add(1, Ordering::Relaxed)));
        jobs.map(|job| job.run(&mut buffer, progress))
            .collect::<Result<Vec<_>, _>>()
    };
    let threads = rayon::current_num_threads().min(small.len());
    let done = (0..threads)
        .into_par_iter()
        .with_max_len(1)
        .map(|_| worker());
    let done = done.collect::<Result<Vec<_>, _>>()?;
    let mut tensors: Vec<_> = done.into_iter().flatten().collect();
    for job in &whole {
        tensors.push(job.run(&mut Vec::new(), progress)?);
    }
    Ok(tensors)
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
    /// Linear layers in eight bits with a scale for at most 64 numbers; other matrices in bfloat16.
    Int8,
    /// Linear layers in four bits with a scale for at most 32 numbers; other matrices in bfloat16. Not on
    /// devices of servers.
    Int4,
}

impl Precision {
    /// The element type for weights that the file has as `stored`; whole numbers are rounded from what it has.
    pub fn of(self, stored: DType) -> DType {
        match (self, stored) {
            (Self::F16, _) | (Self::Stored | Self::Int8 | Self::Int4, DType::F16) => DType::F16,
            (Self::BF16, _) | (Self::Stored | Self::Int8 | Self::Int4, DType::BF16) => DType::BF16,
            _ => DType::F32,
        }
    }

    /// As [`of`](Self::of); what comes from the file in a precision that `device` lacks is widened.
    fn of_on(self, stored: DType, device: &Device) -> DType {
        let dtype = self.of(stored);
        match self {
            Self::F16 | Self::BF16 => dtype,
            _ if device.supports_dtype(dtype) => dtype,
            _ => DType::F32,
        }
    }

    /// That of matrices that do not multiply what they are given: embeddings.
    fn of_embeddings(self, device: &Device) -> Self {
        match self {
            Self::Int8 | Self::Int4 if Self::BF16.available_on(device) => Self::BF16,
            Self::Int8 | Self::Int4 => Self::Stored,
            other => other,
        }
    }

    /// The whole numbers of linear layers, if they are kept in such.
    pub(crate) fn bits(self) -> Option<Bits> {
        match self {
            Self::Int8 => Some(Bits::Eight),
            Self::Int4 => Some(Bits::Four),
            Self::F32 | Self::F16 | Self::BF16 | Self::Stored => None,
        }
    }

    fn rounded<M: Module>(self, module: M) -> M {
        match self.bits() {
            Some(bits) => module.map(&mut LinearsTo::new(bits)),
            None => module,
        }
    }

    /// `module`, which comes from no file, with its matrices in this precision.
    pub fn apply<M: Module>(self, module: M) -> M {
        match self {
            Self::F32 | Self::Stored => module,
            Self::F16 => module.map(&mut MatricesTo(FloatDType::F16)),
            Self::BF16 => module.map(&mut MatricesTo(FloatDType::BF16)),
            Self::Int8 | Self::Int4 => {
                let rounded = self.rounded(module);
                rounded.map(&mut DenseTo(FloatDType::BF16))
            }
        }
    }
}

/// [`MatricesTo`], for matrices that are not rounded to whole numbers.
struct DenseTo(FloatDType);

impl ModuleMapper for DenseTo {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match param.base().dtype() {
            DType::QFloat(_) => param,
            _ => MatricesTo(self.0).map_float(param),
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
