//! Causal multi-head self-attention.

use blip2_kernels::attention;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use super::OptConfig;
use crate::LayerCache;

/// Self-attention over earlier tokens.
#[derive(Module, Debug)]
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    num_heads: usize,
}

impl Attention {
    pub(super) fn new(config: &OptConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let linear = || OptConfig::linear(width, width, config.enable_bias, device);
        Self {
            q_proj: linear(),
            k_proj: linear(),
            v_proj: linear(),
            out_proj: linear(),
            num_heads: config.num_attention_heads,
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
        let query = OptConfig::apply(&self.q_proj, hidden.clone());
        let key = OptConfig::apply(&self.k_proj, hidden.clone());
        let value = OptConfig::apply(&self.v_proj, hidden);
        let (key, value) = match cache {
            Some(cache) => cache.append(key, value),
            None => (key, value),
        };
        let context = attention(query, key, value, Some(&bias), self.num_heads, None);
        OptConfig::apply(&self.out_proj, context)
    }
}
