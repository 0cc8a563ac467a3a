//! A pre-norm transformer block.

use burn::module::Module;
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, sigmoid};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Attention, VisionConfig};

/// The MLP's activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The exact GELU, with the error function.
    Gelu,
    /// CLIP's `x · sigmoid(1.702 x)`.
    QuickGelu,
}

impl Activation {
    /// Applies it.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::QuickGelu => sigmoid(x.clone().mul_scalar(1.702)).mul(x),
        }
    }
}

/// Two linear layers with an activation between.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.fc2
            .forward(self.activation.forward(self.fc1.forward(hidden)))
    }
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct Block {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    pub(crate) fn new(config: &VisionConfig, initializer: &Initializer, device: &Device) -> Self {
        let norm = || {
            LayerNormConfig::new(config.hidden_size)
                .with_epsilon(config.layer_norm_eps)
                .init(device)
        };
        let linear = |inputs, outputs| {
            LinearConfig::new(inputs, outputs)
                .with_initializer(initializer.clone())
                .init(device)
        };
        Self {
            layer_norm1: norm(),
            self_attn: Attention::new(config, initializer, device),
            layer_norm2: norm(),
            mlp: Mlp {
                fc1: linear(config.hidden_size, config.intermediate_size),
                fc2: linear(config.intermediate_size, config.hidden_size),
                activation: config.hidden_act,
            },
        }
    }

    /// # Shapes
    /// - `hidden`: `[batch, tokens, hidden]`
    /// - returns: `[batch, tokens, hidden]`
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let attended = self
            .self_attn
            .forward(self.layer_norm1.forward(hidden.clone()));
        let hidden = hidden + attended;
        let transformed = self.mlp.forward(self.layer_norm2.forward(hidden.clone()));
        hidden + transformed
    }
}
