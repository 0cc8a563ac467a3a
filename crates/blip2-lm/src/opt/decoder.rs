//! One layer of the decoder.

use blip2_kernels::{LayerNorm, dropout};
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Tensor};

use super::{Activation, Attention, OptConfig};
use crate::LayerCache;

/// Attention and feed-forward, each with a residual and a norm before (or after, in opt-350m).
#[derive(Module, Debug)]
pub struct DecoderLayer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    /// The norm of the feed-forward part, by its name in the checkpoints.
    final_layer_norm: LayerNorm,
    dropout: Option<Dropout>,
    do_layer_norm_before: bool,
    #[module(skip)]
    activation: Activation,
}

impl DecoderLayer {
    pub(super) fn new(config: &OptConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.ffn_dim);
        Self {
            self_attn: Attention::new(config, device),
            self_attn_layer_norm: config.norm(device),
            fc1: OptConfig::linear(width, inner, config.enable_bias, device),
            fc2: OptConfig::linear(inner, width, config.enable_bias, device),
            final_layer_norm: config.norm(device),
            dropout: (config.dropout > 0.0).then(|| DropoutConfig::new(config.dropout).init()),
            do_layer_norm_before: config.do_layer_norm_before,
            activation: config.activation_function,
        }
    }

    /// # Shapes
    /// - `hidden`: `[batch, tokens, hidden]`
    /// - `bias`: `[batch, 1, tokens, past + tokens]`
    /// - returns: `[batch, tokens, hidden]`
    pub fn forward(
        &self,
        hidden: Tensor<3>,
        bias: Tensor<4>,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let hidden = self.residual(hidden, &self.self_attn_layer_norm, |x| {
            self.self_attn.forward(x, bias, cache)
        });
        self.residual(hidden, &self.final_layer_norm, |x| {
            OptConfig::apply(&self.fc2, self.activation.after(&self.fc1, x))
        })
    }

    /// Whether two passes over the same input differ.
    pub(super) fn has_dropout(&self) -> bool {
        self.dropout.is_some()
    }

    fn residual(
        &self,
        hidden: Tensor<3>,
        norm: &LayerNorm,
        part: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let drop = |x| match &self.dropout {
            Some(module) => dropout(x, module),
            None => x,
        };
        match self.do_layer_norm_before {
            true => hidden.clone() + drop(part(norm.forward(hidden))),
            false => norm.forward(hidden.clone() + drop(part(hidden))),
        }
    }
}
