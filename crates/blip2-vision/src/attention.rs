//! Multi-head self-attention with one fused projection.

use blip2_kernels::attention;
use burn::module::Module;
use burn::nn::{Initializer, Linear};
use burn::tensor::{Device, Tensor};

use crate::VisionConfig;
use crate::block::{apply, linear};

/// Self-attention over all tokens of an image.
#[derive(Module, Debug)]
pub struct Attention {
    pub(crate) qkv: Linear,
    pub(crate) projection: Linear,
    num_heads: usize,
}

impl Attention {
    pub(crate) fn new(
        config: &VisionConfig,
        initializer: &Initializer,
        output_initializer: &Initializer,
        device: &Device,
    ) -> Self {
        let width = config.hidden_size;
        Self {
            qkv: linear([width, 3 * width], config.qkv_bias, initializer, device),
            projection: linear([width, width], true, output_initializer, device),
            num_heads: config.num_attention_heads,
        }
    }

    /// # Shapes
    /// - `hidden`: `[batch, tokens, hidden]`
    /// - returns: `[batch, tokens, hidden]`
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [_, _, width] = hidden.dims();
        let qkv = apply(&self.qkv, hidden);
        let part = |index: usize| qkv.clone().narrow(2, index * width, width);
        let context = attention(part(0), part(1), part(2), None, self.num_heads, None);
        apply(&self.projection, context)
    }
}
