//! The matrices `a` and `b` of the adapters in a module.

use std::collections::BTreeMap;

use burn::module::{ModuleMapper, Param};
use burn::tensor::{Distribution, Tensor, TensorData};

use super::adapter::Adapter;
use crate::checkpoint::names::Part;

/// Draws `a` as PEFT does: uniform in ±1/√inputs (`kaiming_uniform_` with √5). Burn draws it normal with
/// a deviation of 1/r, some ten times as wide for a language model.
#[derive(Default)]
pub(super) struct DrawA {
    path: Vec<String>,
}

impl ModuleMapper for DrawA {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !ends_with(&self.path, A) {
            return param;
        }
        param.map(|a| {
            let limit = 1.0 / (a.dims()[0] as f64).sqrt();
            let range = Distribution::Uniform(-limit, limit);
            Tensor::random(a.dims(), range, &a.device())
        })
    }
}

/// The paths of an adapter's matrices below its weight.
pub(super) const A: [&str; 2] = ["lora", "a"];
pub(super) const B: [&str; 2] = ["lora", "b"];

pub(super) fn ends_with(path: &[String], end: [&str; 2]) -> bool {
    matches!(path, [.., lora, factor] if *lora == end[0] && *factor == end[1])
}

/// Puts values into adapters.
pub(super) struct Values {
    path: Vec<String>,
    /// By path.
    values: BTreeMap<String, TensorData>,
}

impl Values {
    pub fn of(adapter: &Adapter, part: Part) -> Self {
        let mut values = BTreeMap::new();
        for layer in adapter.layers.iter() {
            if layer.weight.part != part {
                continue;
            }
            let path = |end: [&str; 2]| format!("{}.{}", layer.weight.path, end.join("."));
            values.insert(path(A), layer.a_in_burn());
            values.insert(path(B), layer.b_in_burn());
        }
        let path = Vec::new();
        Self { path, values }
    }
}

impl ModuleMapper for Values {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(data) = self.values.remove(&self.path.join(".")) else {
            return param;
        };
        param.map(|old| {
            let new = Tensor::<D>::from_data(data, &old.device().inner());
            match old.is_autodiff() {
                true => new.autodiff().require_grad(),
                false => new,
            }
        })
    }
}
