//! The precision in which a module's weights are kept.

use burn::module::{ModuleMapper, Param};
use burn::tensor::quantization::{
    Calibration, QuantScheme, QuantStore, QuantValue, ScaleDtype, compute_q_params, compute_range,
};
use burn::tensor::{DType, Device, FloatDType, Tensor};

/// Casts the matrices of a module, for `Module::map`. Norms, biases, queries and positions stay as
/// they are: they are small, and rounding them costs most.
#[derive(Debug, Clone, Copy)]
pub struct MatricesTo(pub FloatDType);

impl ModuleMapper for MatricesTo {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match D {
            2 => param.map(|matrix| matrix.cast(self.0)),
            _ => param,
        }
    }
}

/// Whole numbers in which the weights of linear layers may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Eight bits, and a scale for every few dozen numbers of a row, by Burn's quantizer.
    Eight,
    /// Four bits, and a scale for at most 32 numbers of a row: two to a byte on `flex`, eight to a word by
    /// Burn's quantizer on the backends of CubeCL. Not on devices of servers.
    Four,
}

/// The shortest piece of a row for which a scale of its own pays.
const SHORTEST: usize = 8;

impl Bits {
    /// Numbers of a row of `columns` that share a scale; none if nothing divides them. In eight bits all
    /// numbers then have one scale, in four the weight stays as it is.
    pub fn block(self, columns: usize) -> Option<usize> {
        self.block_of_whole(columns, if self == Self::Four { 2 } else { 1 })
    }

    /// As [`block`](Self::block), of pieces of `together` numbers that are kept as one.
    fn block_of_whole(self, columns: usize, together: usize) -> Option<usize> {
        let longest = match self {
            Self::Eight => 64,
            Self::Four => 32,
        };
        (SHORTEST..=longest)
            .rev()
            .find(|block| block.is_multiple_of(together) && columns.is_multiple_of(*block))
    }

    /// Whether weights on `device` may be kept so.
    pub fn available(self, device: &Device) -> bool {
        match self {
            Self::Eight => true,
            Self::Four => crate::is_flex(device) || crate::is_cube(device),
        }
    }

    /// CubeCL packs the numbers of a block into whole words of 32 bits.
    fn packed<const D: usize>(self, weight: Tensor<D>) -> Tensor<D> {
        let (value, a_word) = match self {
            Self::Eight => (QuantValue::Q8S, 4),
            Self::Four => (QuantValue::Q4S, 8),
        };
        let Some(block) = self.block_of_whole(weight.dims()[D - 1], a_word) else {
            return weight;
        };
        let scheme = QuantScheme::default()
            .with_value(value)
            .with_store(QuantStore::PackedU32(0))
            .per_block([block as u8], ScaleDtype::F32);
        quantized(weight, &scheme)
    }

    fn round<const D: usize>(self, weight: Tensor<D>) -> Tensor<D> {
        if crate::is_cube(&weight.device()) {
            return self.packed(weight);
        }
        let columns = weight.dims()[D - 1];
        match self {
            Self::Eight => {
                let scheme = QuantScheme::default()
                    .with_value(QuantValue::Q8S)
                    .with_store(QuantStore::Native);
                let scheme = match self.block(columns) {
                    Some(block) => scheme.per_block([block as u8], ScaleDtype::F32),
                    None => scheme.per_tensor(ScaleDtype::F32),
                };
                quantized(weight, &scheme)
            }
            Self::Four => {
                #[cfg(feature = "flex")]
                if let Some(packed) = crate::fused::packed(&weight) {
                    return packed;
                }
                weight
            }
        }
    }
}

fn quantized<const D: usize>(weight: Tensor<D>, scheme: &QuantScheme) -> Tensor<D> {
    let range = compute_range(scheme, &weight, &Calibration::MinMax);
    weight.quantize(scheme, compute_q_params(scheme, range))
}

/// Rounds the weights of a module's linear layers to whole numbers, for `Module::map`. They must be constants
/// on a device where that is [`available`](Bits::available). What is rounded already stays as it is.
#[derive(Debug, Clone)]
pub struct LinearsTo {
    bits: Bits,
    containers: Vec<bool>,
}

impl LinearsTo {
    /// To `bits`.
    pub fn new(bits: Bits) -> Self {
        let containers = Vec::new();
        Self { bits, containers }
    }
}

impl ModuleMapper for LinearsTo {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.containers.push(container == "Struct:Linear");
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let linear = D == 2 && self.containers.last() == Some(&true);
        if !linear || matches!(param.base().dtype(), DType::QFloat(_)) {
            return param;
        }
        param.map(|weight| self.bits.round(weight))
    }
}

/// What `tensor` stands for, if it is quantized; else itself.
pub fn dequantized<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    readable(tensor).dequantize()
}

/// `tensor` as Burn reads it: of four bits what they stand for, all else as it is.
pub fn readable<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(unpacked) = crate::fused::unpacked(&tensor) {
        return unpacked;
    }
    tensor
}

/// Turns quantized weights of a module into what they stand for, for `Module::map`.
#[derive(Debug, Clone, Copy)]
pub struct Dequantized;

impl ModuleMapper for Dequantized {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match param.base().dtype() {
            DType::QFloat(_) => param.map(dequantized),
            _ => param,
        }
    }
}
