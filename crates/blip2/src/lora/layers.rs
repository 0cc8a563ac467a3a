//! The linear layers of a captioner, by transformers' names.

use std::collections::BTreeMap;

use burn::module::Module;

use super::config::scale;
use crate::checkpoint::expected_of;
use crate::checkpoint::names::{Address, Layout, Part};

/// A linear layer that may get an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearLayer {
    /// Where its weight is.
    pub weight: Address,
    /// The module's name in transformers' `Blip2ForConditionalGeneration`.
    pub name: String,
    /// The width of what it reads.
    pub inputs: usize,
    /// The width of what it makes.
    pub outputs: usize,
}

/// A linear layer with an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptedLayer {
    /// The layer.
    pub layer: LinearLayer,
    /// The rank.
    pub rank: usize,
    /// PEFT's `lora_alpha`.
    pub alpha: f64,
    /// Whether the scale is rsLoRA's.
    pub rslora: bool,
}

impl AdaptedLayer {
    /// What `a · b` is multiplied by.
    pub fn scale(&self) -> f64 {
        scale(self.alpha, self.rank, self.rslora)
    }

    /// Numbers in `a` and `b`.
    pub fn num_params(&self) -> usize {
        self.rank * (self.layer.inputs + self.layer.outputs)
    }
}

/// The linear layers of `module`, which is `part` of a captioner.
pub(super) fn linear_layers<M: Module>(part: Part, module: &M) -> Vec<LinearLayer> {
    expected_of(part, module)
        .into_iter()
        .filter(|(_, expected)| expected.transposed)
        .filter_map(|(weight, expected)| {
            let &[outputs, inputs] = expected.shape.as_slice() else {
                return None;
            };
            Some(LinearLayer {
                name: name_of(&weight)?,
                weight,
                inputs,
                outputs,
            })
        })
        .collect()
}

/// The module of transformers whose weight is at `address`.
fn name_of(address: &Address) -> Option<String> {
    match Layout::HuggingFace.keys(address).as_slice() {
        [key] if key.third.is_none() => Some(key.name.strip_suffix(".weight")?.to_string()),
        _ => None,
    }
}

/// Names of layers in few words: numbers become `*`, and what is then the same is counted.
pub fn compacted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let parts = name.split('.').map(|part| match part.parse::<usize>() {
            Ok(_) => "*",
            Err(_) => part,
        });
        *counts
            .entry(parts.collect::<Vec<_>>().join("."))
            .or_default() += 1;
    }
    let words = counts.into_iter().map(|(name, count)| match count {
        1 => name,
        count => format!("{name} (×{count})"),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_without_their_numbers() {
        let names = ["a.0.q", "a.1.q", "a.10.q", "a.0.k", "b"];
        assert_eq!(compacted(names), "a.*.k, a.*.q (×3), b");
    }
}
