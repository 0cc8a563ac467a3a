//! The whole image encoder.

use blip2_kernels::{Draws, LayerNorm, recomputed};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::block::{norm, weight_initializer};
use crate::config::check_image_size;
use crate::{Block, PatchEmbed, VisionConfig, VisionError, interpolate_position_embedding};

/// A vision transformer without a final norm.
#[derive(Module, Debug)]
pub struct VisionTransformer {
    patch_embed: PatchEmbed,
    /// `[1, 1, hidden]`
    class_token: Param<Tensor<3>>,
    /// `[1, 1 + patches, hidden]`
    position_embedding: Param<Tensor<3>>,
    pre_layernorm: Option<LayerNorm>,
    blocks: Vec<Block>,
}

impl VisionConfig {
    /// An image encoder with random weights, drawn as EVA does.
    ///
    /// # Errors
    ///
    /// If [`validate`](Self::validate) finds a wrong field.
    pub fn init(&self, device: &Device) -> Result<VisionTransformer, VisionError> {
        self.validate()?;
        let initializer = weight_initializer();
        let tokens = |count| initializer.init([1, count, self.hidden_size], device);
        Ok(VisionTransformer {
            patch_embed: PatchEmbed::new(self, &initializer, device),
            class_token: tokens(1),
            position_embedding: tokens(self.num_tokens()),
            pre_layernorm: self.pre_layernorm.then(|| norm(self, device)),
            blocks: (0..self.num_hidden_layers)
                .map(|index| Block::new(self, index, device))
                .collect(),
        })
    }
}

impl VisionTransformer {
    /// Encodes images: the last hidden state, class token first, without a final norm.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, image_size, image_size]`, normalised
    /// - returns: `[batch, 1 + patches, hidden]`
    ///
    /// # Panics
    ///
    /// If the images are not `image_size` pixels wide and high.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        self.forward_with_taps(images, &mut |_, _| {})
    }

    /// As [`forward`](Self::forward), for training: of each block its input alone is kept for the backward
    /// pass, which runs the block a second time.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    pub fn forward_recomputed(&self, images: Tensor<4>) -> Tensor<3> {
        let hidden = self.enter(images, &mut |_, _| {});
        self.blocks.iter().fold(hidden, |hidden, block| {
            let draws = block.drops().then(|| Draws::new(&hidden.device()));
            recomputed(block, hidden, draws, Block::forward)
        })
    }

    /// As [`forward`](Self::forward), showing `tap` each intermediate: `patch_embed` (patches
    /// alone), `embeddings` (class token and positions added), `pre_layernorm` if there is one,
    /// then `block.0`, `block.1`, …
    pub fn forward_with_taps(
        &self,
        images: Tensor<4>,
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let mut hidden = self.enter(images, tap);
        for (index, block) in self.blocks.iter().enumerate() {
            hidden = block.forward(hidden);
            tap(&format!("block.{index}"), &hidden);
        }
        hidden
    }

    /// What the first block reads.
    fn enter(&self, images: Tensor<4>, tap: &mut dyn FnMut(&str, &Tensor<3>)) -> Tensor<3> {
        let patches = self.patch_embed.forward(images);
        tap("patch_embed", &patches);
        let [batch, ..] = patches.dims();
        let class = self.class_token.val().repeat_dim(0, batch);
        let mut hidden = Tensor::cat(vec![class, patches], 1) + self.position_embedding.val();
        tap("embeddings", &hidden);
        if let Some(norm) = &self.pre_layernorm {
            hidden = norm.forward(hidden);
            tap("pre_layernorm", &hidden);
        }
        hidden
    }

    /// The same encoder for images of another size, its position embedding interpolated.
    ///
    /// # Errors
    ///
    /// If the patches do not fill `image_size`.
    pub fn with_image_size(self, image_size: usize) -> Result<Self, VisionError> {
        let patch_size = self.patch_embed.patch_size();
        check_image_size(image_size, patch_size)?;
        let grid = image_size / patch_size;
        let positions = self.position_embedding.val();
        // A parameter is a leaf of the graph, not the result of its former self.
        let positions = interpolate_position_embedding(positions, (grid, grid))?.detach();
        let id = self.position_embedding.id;
        Ok(Self {
            position_embedding: self.position_embedding.transform_for_load(positions, id),
            patch_embed: self.patch_embed.with_image_size(image_size),
            ..self
        })
    }

    /// The blocks, first to last.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Channels of a token.
    pub fn hidden_size(&self) -> usize {
        self.class_token.lazy_shape()[2]
    }

    /// Height and width of the input, in pixels.
    pub fn image_size(&self) -> usize {
        self.patch_embed.image_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;

    fn tiny() -> VisionConfig {
        VisionConfig {
            image_size: 8,
            patch_size: 4,
            num_channels: 3,
            hidden_size: 12,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            intermediate_size: 20,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-6,
            qkv_bias: true,
            patch_bias: true,
            pre_layernorm: false,
            drop_path_rate: 0.0,
        }
    }

    #[test]
    fn counted_parameters_are_those_of_the_module() {
        let device = Device::default();
        for (qkv_bias, patch_bias, pre_layernorm) in [
            (true, true, false),
            (false, true, true),
            (true, false, true),
        ] {
            let config = VisionConfig {
                qkv_bias,
                patch_bias,
                pre_layernorm,
                ..tiny()
            };
            let module = config.init(&device).unwrap();
            assert_eq!(module.num_params(), config.num_params());
        }
    }

    #[test]
    fn initial_weights_are_drawn_as_in_eva() {
        let config = VisionConfig {
            hidden_size: 120,
            intermediate_size: 400,
            ..tiny()
        };
        let module = config.init(&Device::default()).unwrap();
        let std = |weight: Tensor<2>| weight.square().mean().sqrt().into_scalar::<f32>();
        let (attn, mlp) = (&module.blocks[1].self_attn, &module.blocks[1].mlp);
        // Of 14400 draws or more: the standard error of a standard deviation is under 0.6 %.
        for (weight, expected) in [
            (attn.qkv.weight.val(), 0.02),
            (attn.projection.weight.val(), 0.02 / 2.0),
            (mlp.fc1.weight.val(), 0.02),
            (mlp.fc2.weight.val(), 0.02 / 2.0),
        ] {
            let measured = std(weight);
            assert!(
                (measured / expected - 1.0).abs() < 0.03,
                "{measured} for {expected}"
            );
        }
        let bias = attn.qkv.bias.as_ref().unwrap().val();
        assert_eq!(bias.abs().sum().into_scalar::<f32>(), 0.0);
    }

    #[test]
    fn another_image_size_interpolates_positions_and_refuses_broken_patches() {
        let device = Device::default();
        let module = tiny().init(&device).unwrap().with_image_size(12).unwrap();
        assert_eq!(module.image_size(), 12);
        let output = module.forward(Tensor::ones([2, 3, 12, 12], &device));
        assert_eq!(output.dims(), [2, 10, 12]);
        let error = module.with_image_size(14).unwrap_err();
        assert!(error.to_string().contains("`patch_size` 4"), "{error}");
    }
}
