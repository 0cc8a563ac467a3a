//! The precision in which a module's weights are kept.

use burn::module::{ModuleMapper, Param};
use burn::tensor::{FloatDType, Tensor};

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
