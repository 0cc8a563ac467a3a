//! Layer norm.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor, module};

/// `(x − mean) / √(variance + epsilon) · gamma + beta` over the last dimension.
///
/// Burn's own module does not show its epsilon, which the operation for `flex` needs.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// The scale of each channel.
    pub gamma: Param<Tensor<1>>,
    /// What is added to each channel.
    pub beta: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl LayerNorm {
    /// A norm of `width` channels that changes nothing else.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([width], device),
            beta: Initializer::Zeros.init([width], device),
            epsilon,
        }
    }

    /// # Shapes
    /// - `x`: `[…, width]`
    /// - returns: the same
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        #[cfg(feature = "flex")]
        if crate::fused::takes(&x) {
            return crate::fused::layer_norm(x, gamma, beta, self.epsilon);
        }
        let dtype = x.dtype();
        if !matches!(dtype, DType::F16 | DType::BF16) {
            return module::layer_norm(x, gamma.cast(dtype), Some(beta.cast(dtype)), self.epsilon);
        }
        // Half precision can't hold the squares.
        let wide = FloatDType::F32;
        let (x, gamma, beta) = (x.cast(wide), gamma.cast(wide), beta.cast(wide));
        module::layer_norm(x, gamma, Some(beta), self.epsilon).cast(dtype)
    }
}
