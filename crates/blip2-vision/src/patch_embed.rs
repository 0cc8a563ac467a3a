//! Patches to tokens.

use burn::module::Module;
use burn::nn::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};

use crate::VisionConfig;

/// Projects each patch to a token.
///
/// The parameters are those of the convolution that every reference has; since its stride equals
/// its kernel, the forward pass is one matrix product over flattened patches.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    projection: Conv2d,
    patch_size: usize,
}

impl PatchEmbed {
    pub(crate) fn new(config: &VisionConfig, initializer: Initializer, device: &Device) -> Self {
        let patch = [config.patch_size; 2];
        Self {
            projection: Conv2dConfig::new([config.num_channels, config.hidden_size], patch)
                .with_stride(patch)
                .with_bias(config.patch_bias)
                .with_initializer(initializer)
                .init(device),
            patch_size: config.patch_size,
        }
    }

    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`
    /// - returns: `[batch, patches, hidden]`, patches in reading order
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let [batch, channels, height, width] = images.dims();
        let patch = self.patch_size;
        let (rows, columns) = (height / patch, width / patch);
        let patches = images
            .reshape([batch, channels, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, channels * patch * patch]);
        let weight = self.projection.weight.val();
        let [hidden, ..] = weight.dims();
        let weight = weight
            .reshape([hidden, channels * patch * patch])
            .transpose();
        let bias = self.projection.bias.as_ref().map(|bias| bias.val());
        linear(patches, weight, bias)
    }
}
