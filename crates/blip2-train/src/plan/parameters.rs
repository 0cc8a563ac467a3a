//! The weights of a model, counted while its towers are walked through.

use std::collections::BTreeMap;

use blip2_kernels::Bits;

use super::towers::Keeping;
use super::work::{F32, Part};

/// One weight.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Parameter {
    numbers: usize,
    bytes: usize,
    learns: bool,
}

/// All weights by part and name; one that is used twice counts once.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    all: BTreeMap<(Part, String), Parameter>,
}

impl Parameters {
    fn insert(&mut self, part: Part, name: &str, parameter: Parameter) {
        self.all
            .entry((part, name.to_string()))
            .or_insert(parameter);
    }

    /// A linear layer's weight; returns the bits of one of its numbers.
    pub fn matrix(&mut self, part: Part, name: &str, dims: [usize; 2], keeping: &Keeping) -> usize {
        let [inputs, outputs] = dims;
        let numbers = inputs * outputs;
        // The patch projection is a convolution, which is neither narrowed nor quantized.
        let block = |rounded: Bits| rounded.block(outputs);
        let (bits, scales) = match (name, keeping.rounded) {
            ("patch_embed", _) => (32, 0),
            (_, Some(Bits::Eight)) => (8, block(Bits::Eight).map_or(1, |block| numbers / block)),
            (_, Some(Bits::Four)) => match block(Bits::Four) {
                Some(block) => (4, numbers / block),
                None => (keeping.bits, 0),
            },
            _ => (keeping.bits, 0),
        };
        let parameter = Parameter {
            numbers,
            bytes: numbers * bits / 8 + scales * F32,
            learns: keeping.learns,
        };
        self.insert(part, name, parameter);
        bits
    }

    /// An embedding of `numbers`, in the precision of the tower's matrices.
    pub fn embedding(&mut self, part: Part, name: &str, numbers: usize, keeping: &Keeping) {
        let parameter = Parameter {
            numbers,
            bytes: numbers * keeping.bits / 8,
            learns: keeping.learns,
        };
        self.insert(part, name, parameter);
    }

    /// Biases, norms, queries: always in f32.
    pub fn vector(&mut self, part: Part, name: &str, numbers: usize, keeping: &Keeping) {
        let parameter = Parameter {
            numbers,
            bytes: numbers * F32,
            learns: keeping.learns,
        };
        self.insert(part, name, parameter);
    }

    /// One of an adapter's two matrices.
    pub fn factor(&mut self, part: Part, name: &str, numbers: usize) {
        let parameter = Parameter {
            numbers,
            bytes: numbers * F32,
            learns: true,
        };
        self.insert(part, name, parameter);
    }

    /// Numbers of a part, adapters included.
    pub fn numbers(&self, part: Part) -> usize {
        self.of(part).map(|parameter| parameter.numbers).sum()
    }

    /// Bytes of a part's weights as they are kept.
    pub fn bytes(&self, part: Part) -> usize {
        self.of(part).map(|parameter| parameter.bytes).sum()
    }

    /// Numbers that learn, in all parts.
    pub fn learned(&self) -> usize {
        let learned = self.all.values().filter(|parameter| parameter.learns);
        learned.map(|parameter| parameter.numbers).sum()
    }

    /// The sizes of the weights that learn.
    pub fn learned_sizes(&self) -> impl Iterator<Item = usize> {
        let learned = self.all.values().filter(|parameter| parameter.learns);
        learned.map(|parameter| parameter.numbers)
    }

    /// The parts that there are.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self.all.keys().map(|(part, _)| *part).collect();
        parts.dedup();
        parts
    }

    fn of(&self, part: Part) -> impl Iterator<Item = &Parameter> {
        let of_part = move |(key, _): &(&(Part, String), _)| key.0 == part;
        self.all
            .iter()
            .filter(of_part)
            .map(|(_, parameter)| parameter)
    }
}
