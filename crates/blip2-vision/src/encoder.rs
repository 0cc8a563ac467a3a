//! The whole image encoder.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Distribution, Tensor};

use crate::{Block, PatchEmbed, VisionConfig, VisionError};

/// Standard deviation of initial weights (EVA, timm).
const INIT_STD: f64 = 0.02;

/// A vision transformer without a final norm.
#[derive(Module, Debug)]
pub struct VisionTransformer {
    patch_embed: PatchEmbed,
    /// `[1, 1, hidden]`
    class_embedding: Param<Tensor<3>>,
    /// `[1, 1 + patches, hidden]`
    position_embedding: Param<Tensor<3>>,
    pre_layernorm: Option<LayerNorm>,
    layers: Vec<Block>,
    image_size: usize,
}

impl VisionConfig {
    /// An image encoder with random weights.
    ///
    /// # Errors
    ///
    /// If [`validate`](Self::validate) finds a wrong field.
    pub fn init(&self, device: &Device) -> Result<VisionTransformer, VisionError> {
        self.validate()?;
        let initializer = Initializer::Normal {
            mean: 0.0,
            std: INIT_STD,
        };
        let normal = |tokens| {
            let shape = [1, tokens, self.hidden_size];
            let distribution = Distribution::Normal(0.0, INIT_STD);
            Param::from_tensor(Tensor::<3>::random(shape, distribution, device))
        };
        Ok(VisionTransformer {
            patch_embed: PatchEmbed::new(self, initializer.clone(), device),
            class_embedding: normal(1),
            position_embedding: normal(self.num_tokens()),
            pre_layernorm: self.pre_layernorm.then(|| {
                LayerNormConfig::new(self.hidden_size)
                    .with_epsilon(self.layer_norm_eps)
                    .init(device)
            }),
            layers: (0..self.num_hidden_layers)
                .map(|_| Block::new(self, &initializer, device))
                .collect(),
            image_size: self.image_size,
        })
    }
}

impl VisionTransformer {
    /// Encodes images: the last hidden state, class token first, without a final norm.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, image_size, image_size]`, normalised
    /// - returns: `[batch, 1 + patches, hidden]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        self.forward_with_taps(images, &mut |_, _| {})
    }

    /// As [`forward`](Self::forward), showing `tap` each intermediate: `embeddings`, then
    /// `layers.0`, `layers.1`, …
    pub fn forward_with_taps(
        &self,
        images: Tensor<4>,
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let patches = self.patch_embed.forward(images);
        let [batch, ..] = patches.dims();
        let class = self.class_embedding.val().repeat_dim(0, batch);
        let mut hidden = Tensor::cat(vec![class, patches], 1) + self.position_embedding.val();
        if let Some(norm) = &self.pre_layernorm {
            hidden = norm.forward(hidden);
        }
        tap("embeddings", &hidden);
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward(hidden);
            tap(&format!("layers.{index}"), &hidden);
        }
        hidden
    }

    /// Channels of a token.
    pub fn hidden_size(&self) -> usize {
        self.class_embedding.lazy_shape()[2]
    }

    /// Height and width of the input, in pixels.
    pub fn image_size(&self) -> usize {
        self.image_size
    }
}
