//! Patches to tokens.

use burn::module::Module;
use burn::nn::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor, assert_shape};

use crate::VisionConfig;

/// Projects each patch to a token.
///
/// The parameters are those of the convolution that every reference has; since its stride equals
/// its kernel, the forward pass is one matrix product over flattened patches.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    projection: Conv2d,
    image_size: usize,
}

impl PatchEmbed {
    pub(crate) fn new(config: &VisionConfig, initializer: &Initializer, device: &Device) -> Self {
        let patch = [config.patch_size; 2];
        let mut projection = Conv2dConfig::new([config.num_channels, config.hidden_size], patch)
            .with_stride(patch)
            .with_bias(false)
            .with_initializer(initializer.clone())
            .init(device);
        projection.bias = config
            .patch_bias
            .then(|| Initializer::Zeros.init([config.hidden_size], device));
        Self {
            projection,
            image_size: config.image_size,
        }
    }

    /// # Shapes
    /// - `images`: `[batch, channels, image_size, image_size]`, of any float type
    /// - returns: `[batch, patches, hidden]`, patches in reading order, of the weights' type
    ///
    /// # Panics
    ///
    /// If the images have another size.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let weight = self.projection.weight.val();
        let [hidden, channels, patch, _] = weight.dims();
        assert_shape!(images, [_, channels, self.image_size, self.image_size]);
        let [batch, ..] = images.dims();
        let grid = self.image_size / patch;
        let patches = images
            .cast(weight.dtype())
            .reshape([batch, channels, grid, patch, grid, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, grid * grid, channels * patch * patch]);
        let weight = weight
            .reshape([hidden, channels * patch * patch])
            .transpose();
        let bias = self.projection.bias.as_ref().map(|bias| bias.val());
        linear(patches, weight, bias)
    }

    pub(crate) fn image_size(&self) -> usize {
        self.image_size
    }

    pub(crate) fn patch_size(&self) -> usize {
        self.projection.kernel_size[0]
    }

    /// The same projection for images of another size.
    pub(crate) fn with_image_size(self, image_size: usize) -> Self {
        Self { image_size, ..self }
    }
}
