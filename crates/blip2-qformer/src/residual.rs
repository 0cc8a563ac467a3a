//! The end of every step in BERT: projection, dropout, residual, norm.

use blip2_kernels::{Activation, LayerNorm, dropout};
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Tensor};

use crate::QFormerConfig;
use crate::layer::linear;

/// `norm(residual + dropout(dense(x)))`: what follows attention and feed-forward.
#[derive(Module, Debug)]
pub struct ResidualOutput {
    dense: Linear,
    layer_norm: LayerNorm,
    dropout: Dropout,
}

impl ResidualOutput {
    pub(crate) fn new(inputs: usize, config: &QFormerConfig, device: &Device) -> Self {
        Self {
            dense: linear(inputs, config.hidden_size, config, device),
            layer_norm: norm(config, device),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
        }
    }

    /// # Shapes
    /// - `x`: `[batch, queries, inputs]`
    /// - `residual`: `[batch, queries, hidden]`
    /// - returns: `[batch, queries, hidden]`
    pub fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let x = blip2_kernels::linear(x, &self.dense, Activation::None);
        let x = dropout(x, &self.dropout);
        self.layer_norm.forward(x + residual)
    }
}

/// A norm with the config's epsilon.
pub(crate) fn norm(config: &QFormerConfig, device: &Device) -> LayerNorm {
    LayerNorm::new(config.hidden_size, config.layer_norm_eps, device)
}
