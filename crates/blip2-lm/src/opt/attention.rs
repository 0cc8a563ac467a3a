//! Causal multi-head self-attention.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, FloatDType, Tensor};

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

    /// Burn's own `attention` is not used: its flash kernels on CubeCL ignore an additive bias
    /// (0.22.1), it has no backward pass, and a caption is too short to gain from it.
    ///
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
        let [batch, tokens, width] = hidden.dims();
        let head_dim = width / self.num_heads;
        let heads = |x: Tensor<3>| {
            x.reshape([batch, tokens, self.num_heads, head_dim])
                .swap_dims(1, 2)
        };
        // Scaled before the product, as the reference does: it matters in half precision.
        let query = OptConfig::apply(&self.q_proj, hidden.clone());
        let query = heads(query.mul_scalar((head_dim as f64).powf(-0.5)));
        let key = heads(OptConfig::apply(&self.k_proj, hidden.clone()));
        let value = heads(OptConfig::apply(&self.v_proj, hidden));
        let (key, value) = match cache {
            Some(cache) => cache.append(key, value),
            None => (key, value),
        };
        let scores = query.matmul(key.transpose()) + bias;
        let context = softmax_in_f32(scores).matmul(value);
        OptConfig::apply(
            &self.out_proj,
            context.swap_dims(1, 2).reshape([batch, tokens, width]),
        )
    }
}

/// Softmax over the last dimension; half precision is widened for the sum.
fn softmax_in_f32(scores: Tensor<4>) -> Tensor<4> {
    match scores.dtype() {
        dtype @ (DType::F16 | DType::BF16) => {
            let narrow: FloatDType = dtype.into();
            softmax(scores.cast(FloatDType::F32), 3).cast(narrow)
        }
        _ => softmax(scores, 3),
    }
}
