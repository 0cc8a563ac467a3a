//! The vision neck.

use blip2_kernels::Activation;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// One linear layer from the Q-Former to the language model.
///
/// Names elsewhere: `language_projection` (transformers), `opt_proj` (LAVIS), `vision_neck`
/// (mmpretrain).
#[derive(Module, Debug)]
pub struct VisionNeck {
    projection: Linear,
}

impl VisionNeck {
    /// A neck with random weights: torch's default for linear layers, which LAVIS keeps.
    pub fn new(qformer_width: usize, lm_width: usize, device: &Device) -> Self {
        Self {
            projection: LinearConfig::new(qformer_width, lm_width).init(device),
        }
    }

    /// # Shapes
    /// - `query_output`: `[batch, queries, qformer_width]`
    /// - returns: `[batch, queries, lm_width]`
    pub fn forward(&self, query_output: Tensor<3>) -> Tensor<3> {
        blip2_kernels::linear(query_output, &self.projection, Activation::None)
    }
}
