//! Weights in fewer bits, through Burn's quantizer.

use std::collections::BTreeMap;

use burn::module::{Module, ParamGroup, Quantizer};
use burn::tensor::quantization::{Calibration, QuantScheme, QuantStore, QuantValue, ScaleDtype};

use super::config::Quantization;
use super::layers::LinearLayer;

/// The longest piece of a row that shares a scale, and the shortest for which scales pay.
const BLOCKS: std::ops::RangeInclusive<usize> = 8..=64;

/// `module` with the weights of `layers` quantized.
pub(super) fn quantized<M: Module>(
    module: M,
    layers: &[LinearLayer],
    quantization: Quantization,
) -> M {
    let Quantization::Int8 = quantization;
    // Burn wants whole blocks, so layers of other widths may have other ones.
    let mut groups: BTreeMap<Option<usize>, Vec<String>> = BTreeMap::new();
    for layer in layers {
        let block = block(layer.outputs);
        groups
            .entry(block)
            .or_default()
            .push(layer.weight.path.clone());
    }
    groups.into_iter().fold(module, |module, (block, paths)| {
        let scheme = QuantScheme::default()
            .with_value(QuantValue::Q8S)
            .with_store(QuantStore::Native);
        let scheme = match block {
            Some(block) => scheme.per_block([block as u8], ScaleDtype::F32),
            None => scheme.per_tensor(ScaleDtype::F32),
        };
        let mut quantizer = Quantizer::new(Calibration::MinMax, scheme);
        module.quantize_weights_group(&mut quantizer, ParamGroup::from_paths(paths))
    })
}

/// The largest divisor of a row's length that is in [`BLOCKS`].
fn block(columns: usize) -> Option<usize> {
    BLOCKS.rev().find(|&block| columns.is_multiple_of(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_divide_the_rows() {
        for (columns, expected) in [(2560, Some(64)), (20, Some(20)), (72, Some(36)), (67, None)] {
            assert_eq!(block(columns), expected);
        }
    }
}
