//! Multi-head self-attention with one fused projection.

use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::{Device, Tensor};

use crate::VisionConfig;

/// Self-attention over all tokens of an image.
#[derive(Module, Debug)]
pub struct Attention {
    qkv: Linear,
    projection: Linear,
    num_heads: usize,
}

impl Attention {
    pub(crate) fn new(config: &VisionConfig, initializer: &Initializer, device: &Device) -> Self {
        let width = config.hidden_size;
        let linear = |outputs, bias| {
            LinearConfig::new(width, outputs)
                .with_bias(bias)
                .with_initializer(initializer.clone())
                .init(device)
        };
        Self {
            qkv: linear(3 * width, config.qkv_bias),
            projection: linear(width, true),
            num_heads: config.num_attention_heads,
        }
    }

    /// # Shapes
    /// - `hidden`: `[batch, tokens, hidden]`
    /// - returns: `[batch, tokens, hidden]`
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, width] = hidden.dims();
        let head_dim = width / self.num_heads;
        let qkv = self
            .qkv
            .forward(hidden)
            .reshape([batch, tokens, 3, self.num_heads, head_dim])
            .permute([2, 0, 3, 1, 4]);
        let part = |index| qkv.clone().narrow(0, index, 1).squeeze_dim::<4>(0);
        let (query, key, value) = (part(0), part(1), part(2));
        let context = if query.is_autodiff() {
            // Burn's attention has no backward pass of its own and would fall back to more steps.
            let scores = query
                .mul_scalar((head_dim as f64).powf(-0.5))
                .matmul(key.transpose());
            softmax(scores, 3).matmul(value)
        } else {
            attention(query, key, value, None, None, Default::default())
        };
        self.projection
            .forward(context.swap_dims(1, 2).reshape([batch, tokens, width]))
    }
}
