//! Stochastic depth.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::Tensor;

/// Zeroes a residual branch for whole samples while training, and scales what it keeps by
/// `1 / (1 - prob)`.
///
/// Burn's dropout decides what training is: an autodiff device and a module that isn't frozen.
///
/// Reference: Huang et al., "Deep Networks with Stochastic Depth".
#[derive(Module, Debug)]
pub struct DropPath {
    dropout: Dropout,
}

impl DropPath {
    /// Skips a sample with probability `prob`.
    ///
    /// # Panics
    ///
    /// If `prob` is not in `[0, 1)`; [`VisionConfig`](crate::VisionConfig) checks it.
    pub fn new(prob: f64) -> Self {
        Self {
            dropout: DropoutConfig::new(prob).init(),
        }
    }

    /// Whether anything is skipped in training.
    pub(crate) fn drops(&self) -> bool {
        self.dropout.prob > 0.0
    }

    /// # Shapes
    /// - `branch`: `[batch, tokens, hidden]`
    /// - returns: `[batch, tokens, hidden]`
    pub fn forward(&self, branch: Tensor<3>) -> Tensor<3> {
        if !self.drops() || !branch.is_autodiff() {
            return branch;
        }
        let [batch, ..] = branch.dims();
        // One number a sample, dropped as a whole.
        let keep = Tensor::ones([batch, 1, 1], (&branch.device(), branch.dtype()));
        branch * self.dropout.forward(keep)
    }
}
