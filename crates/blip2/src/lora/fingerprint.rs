//! Tells whether adapters were trained on these very weights, up to the precision that they are kept in.
//!
//! Shapes alone do not: two models of one architecture have the same. So a folder that this program writes
//! holds, for each adapted layer, a few sums over a corner of its weight with signs that are drawn once,
//! relative to the corner's norm. Rounding to half precision or eight bits changes them by a hundredth or
//! so; those of unrelated weights are as far apart as two draws of a normal distribution.

use std::collections::BTreeMap;

use blip2_kernels::dequantized;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

use super::adapter::Adapter;
use super::attach::folder_error;
use super::layers::LinearLayer;
use crate::checkpoint::Weights;
use crate::checkpoint::names::{Address, Part};
use crate::{Blip2Caption, Blip2Error};

/// The corner's side.
const SIDE: usize = 64;
/// Sums for each layer.
const SUMS: usize = 4;
/// The largest difference (its mean square's root) of weights that are the same.
const LARGEST: f64 = 0.15;

/// By the layer's name.
pub type Fingerprints = BTreeMap<String, Vec<f32>>;

/// Of a corner with `[inputs, outputs]` at most [`SIDE`] each; `value` reads it.
fn fingerprint([inputs, outputs]: [usize; 2], value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let mut sums = [0f64; SUMS];
    let mut square = 0f64;
    for input in 0..inputs.min(SIDE) {
        for output in 0..outputs.min(SIDE) {
            let value = f64::from(value(input, output));
            square += value * value;
            for (index, sum) in sums.iter_mut().enumerate() {
                let place = (index * SIDE + input) * SIDE + output;
                *sum += value * sign(place as u32);
            }
        }
    }
    let norm = square.sqrt().max(f64::MIN_POSITIVE);
    sums.map(|sum| (sum / norm) as f32).to_vec()
}

/// A fair coin for each place: C. Wellons' lowbias32.
fn sign(place: u32) -> f64 {
    let mut mixed = place ^ (place >> 16);
    mixed = mixed.wrapping_mul(0x7feb_352d);
    mixed ^= mixed >> 15;
    mixed = mixed.wrapping_mul(0x846c_a68b);
    mixed ^= mixed >> 16;
    match mixed >> 31 {
        0 => 1.0,
        _ => -1.0,
    }
}

/// Of a model's layers, without their adapters.
pub(super) fn of_model<'a>(
    model: &Blip2Caption,
    layers: impl Iterator<Item = &'a LinearLayer>,
) -> Fingerprints {
    let names: BTreeMap<Address, String> = layers
        .map(|layer| (layer.weight.clone(), layer.name.clone()))
        .collect();
    let mut look = Look {
        names,
        part: Part::VisionBackbone,
        path: Vec::new(),
        found: BTreeMap::new(),
    };
    model.vision_backbone.get().visit(&mut look);
    look.part = Part::MultimodalBackbone;
    model.multimodal_backbone.get().visit(&mut look);
    look.part = Part::TextBackbone;
    model.text_backbone.get().visit(&mut look);
    look.found
}

/// Of layers whose weights are still in their files.
pub(super) fn of_weights(adapter: &Adapter, weights: &Weights) -> Result<Fingerprints, Blip2Error> {
    let mut found = BTreeMap::new();
    for layer in &adapter.layers {
        let Some(weight) = weights.tensors.get(&layer.weight) else {
            continue;
        };
        let bytes = weight.read(DType::F32)?;
        let (numbers, _) = bytes.as_chunks::<4>();
        let value = |input: usize, output: usize| {
            let index = match weight.burn_layout {
                true => input * layer.outputs + output,
                false => output * layer.inputs + input,
            };
            numbers
                .get(index)
                .map_or(0.0, |&four| f32::from_le_bytes(four))
        };
        let shape = [layer.inputs, layer.outputs];
        found.insert(layer.name.clone(), fingerprint(shape, value));
    }
    Ok(found)
}

impl Adapter {
    /// Fails if the folder says what weights it belongs to, and `found` are others.
    pub(super) fn check_base(&self, found: &Fingerprints) -> Result<(), Blip2Error> {
        let mut squares = Vec::new();
        for (name, found) in found {
            let expected = self.fingerprints.get(name).into_iter().flatten();
            let pairs = expected.zip(found);
            squares.extend(pairs.map(|(one, other)| f64::from(one - other).powi(2)));
        }
        if squares.is_empty() {
            return Ok(());
        }
        let difference = (squares.iter().sum::<f64>() / squares.len() as f64).sqrt();
        // Not a number is a difference too.
        if difference <= LARGEST {
            return Ok(());
        }
        let base = match &self.base {
            Some(base) => format!(" ({base})"),
            None => String::new(),
        };
        Err(folder_error(
            &self.path,
            format!(
                "the adapter was trained on another base{base}: the weights of its layers are not \
                 those here"
            ),
        ))
    }
}

struct Look {
    names: BTreeMap<Address, String>,
    part: Part,
    path: Vec<String>,
    found: Fingerprints,
}

impl ModuleVisitor for Look {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let address = Address {
            part: self.part,
            path: self.path.join("."),
        };
        let Some(name) = self.names.get(&address) else {
            return;
        };
        let weight = dequantized(param.base().inner());
        let &[inputs, outputs] = weight.dims().as_slice() else {
            return;
        };
        let weight = weight.reshape([inputs, outputs]);
        let (rows, columns) = (inputs.min(SIDE), outputs.min(SIDE));
        let corner: Vec<f32> = weight
            .slice([0..rows, 0..columns])
            .into_data()
            .iter::<f32>()
            .collect();
        let value = |input: usize, output: usize| corner[input * columns + output];
        let found = fingerprint([rows, columns], value);
        self.found.insert(name.clone(), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_moves_a_fingerprint_by_little_and_other_weights_by_much() {
        let weight = |seed: u32| {
            move |input: usize, output: usize| {
                let place = (input * 1000 + output) as u32;
                let (a, b) = (sign(place * 7 + seed), sign(place * 11 + seed + 5));
                (a + 0.5 * b + 0.25 * sign(place * 13 + seed + 9)) as f32
            }
        };
        let distance = |one: &[f32], other: &[f32]| {
            let squares = one.iter().zip(other).map(|(a, b)| (a - b).powi(2));
            f64::from(squares.sum::<f32>() / SUMS as f32).sqrt()
        };
        let shape = [20, 90];
        let (one, other) = (weight(1), weight(1000));
        let exact = fingerprint(shape, one);
        // A grid of 127 steps for the largest of them.
        let rounded = fingerprint(shape, |i, o| (one(i, o) * 72.0).round() / 72.0);
        assert!(distance(&exact, &rounded) < 0.1 * LARGEST);
        assert!(distance(&exact, &fingerprint(shape, other)) > 2.0 * LARGEST);
    }
}
