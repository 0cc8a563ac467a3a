//! A pre-norm transformer block.

use blip2_kernels::LayerNorm;
use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Attention, DropPath, VisionConfig};

/// Standard deviation of initial weights. timm's truncated normal cuts at ±2, a hundred standard
/// deviations away: it is a plain normal distribution.
const INIT_STD: f64 = 0.02;

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
    fn kernel(self) -> blip2_kernels::Activation {
        match self {
            Self::Gelu => blip2_kernels::Activation::Gelu,
            Self::QuickGelu => blip2_kernels::Activation::QuickGelu,
        }
    }
}

/// Two linear layers with an activation between.
#[derive(Module, Debug)]
pub struct Mlp {
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// # Shapes
    /// - `hidden`: `[batch, tokens, hidden]`
    /// - returns: `[batch, tokens, hidden]`
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let inner = blip2_kernels::linear(hidden, &self.fc1, self.activation.kernel());
        apply(&self.fc2, inner)
    }
}

/// `x + drop_path(attention(norm(x)))`, then `x + drop_path(mlp(norm(x)))`.
#[derive(Module, Debug)]
pub struct Block {
    layer_norm1: LayerNorm,
    pub(crate) self_attn: Attention,
    layer_norm2: LayerNorm,
    pub(crate) mlp: Mlp,
    drop_path: DropPath,
}

impl Block {
    /// The block at `index`, with EVA's initial weights: what a block adds to the residual stream
    /// starts smaller the deeper it lies (LAVIS `fix_init_weight`).
    pub(crate) fn new(config: &VisionConfig, index: usize, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let input = weight_initializer();
        let output = Initializer::Normal {
            mean: 0.0,
            std: INIT_STD / (2.0 * (index + 1) as f64).sqrt(),
        };
        let last = config.num_hidden_layers.saturating_sub(1).max(1);
        Self {
            layer_norm1: norm(config, device),
            self_attn: Attention::new(config, &input, &output, device),
            layer_norm2: norm(config, device),
            mlp: Mlp {
                fc1: linear([width, inner], true, &input, device),
                fc2: linear([inner, width], true, &output, device),
                activation: config.hidden_act,
            },
            drop_path: DropPath::new(config.drop_path_rate * index as f64 / last as f64),
        }
    }

    /// # Shapes
    /// - `hidden`: `[batch, tokens, hidden]`
    /// - returns: `[batch, tokens, hidden]`
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let attended = self
            .self_attn
            .forward(self.layer_norm1.forward(hidden.clone()));
        let hidden = hidden + self.drop_path.forward(attended);
        let transformed = self.mlp.forward(self.layer_norm2.forward(hidden.clone()));
        hidden + self.drop_path.forward(transformed)
    }

    /// Whether two passes over the same input may differ.
    pub(crate) fn drops(&self) -> bool {
        self.drop_path.drops()
    }
}

/// Draws weights, the class token and positions.
pub(crate) fn weight_initializer() -> Initializer {
    Initializer::Normal {
        mean: 0.0,
        std: INIT_STD,
    }
}

/// A norm with the config's epsilon.
pub(crate) fn norm(config: &VisionConfig, device: &Device) -> LayerNorm {
    LayerNorm::new(config.hidden_size, config.layer_norm_eps, device)
}

/// `linear(x)` in the precision of `x`, whatever that of the weights.
pub(crate) fn apply(linear: &Linear, x: Tensor<3>) -> Tensor<3> {
    blip2_kernels::linear(x, linear, blip2_kernels::Activation::None)
}

/// A linear layer whose bias starts at zero; Burn would draw it like the weight.
pub(crate) fn linear(
    [inputs, outputs]: [usize; 2],
    bias: bool,
    initializer: &Initializer,
    device: &Device,
) -> Linear {
    let mut linear = LinearConfig::new(inputs, outputs)
        .with_bias(false)
        .with_initializer(initializer.clone())
        .init(device);
    linear.bias = bias.then(|| Initializer::Zeros.init([outputs], device));
    linear
}
