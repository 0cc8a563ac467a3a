//! The activations of the towers.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, relu, sigmoid};

/// What follows a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// The exact GELU, with the error function.
    Gelu,
    /// CLIP's `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`
    Relu,
}

impl Activation {
    /// Applies it by Burn's own operations.
    pub(crate) fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::None => x,
            Self::Gelu => gelu(x),
            Self::QuickGelu => sigmoid(x.clone().mul_scalar(1.702)).mul(x),
            Self::Relu => relu(x),
        }
    }
}
