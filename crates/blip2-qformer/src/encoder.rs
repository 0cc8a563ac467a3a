//! The Q-Former with its queries.

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Distribution, Tensor};

use crate::{Layer, QFormerConfig, QFormerError};

/// Learned queries that read an image.
#[derive(Module, Debug)]
pub struct QFormer {
    /// `[1, num_query_tokens, hidden]`
    query_tokens: Param<Tensor<3>>,
    layer_norm: LayerNorm,
    dropout: Dropout,
    layers: Vec<Layer>,
}

impl QFormerConfig {
    /// A Q-Former with random weights.
    ///
    /// # Errors
    ///
    /// If [`validate`](Self::validate) finds a wrong field.
    pub fn init(&self, device: &Device) -> Result<QFormer, QFormerError> {
        self.validate()?;
        let queries = Tensor::random(
            [1, self.num_query_tokens, self.hidden_size],
            Distribution::Normal(0.0, self.initializer_range),
            device,
        );
        Ok(QFormer {
            query_tokens: Param::from_tensor(queries),
            layer_norm: LayerNormConfig::new(self.hidden_size)
                .with_epsilon(self.layer_norm_eps)
                .init(device),
            dropout: DropoutConfig::new(self.hidden_dropout_prob).init(),
            layers: (0..self.num_hidden_layers)
                .map(|index| Layer::new(index, self, device))
                .collect(),
        })
    }
}

impl QFormer {
    /// Cross-attends the queries to the image and returns what a language model can read, after
    /// the neck.
    ///
    /// # Shapes
    /// - `image_embeds`: `[batch, image_tokens, vision_width]`
    /// - returns: `[batch, num_query_tokens, hidden_size]`
    ///
    /// Reference: BLIP-2, section 3.1.
    pub fn forward(&self, image_embeds: Tensor<3>) -> Tensor<3> {
        self.forward_with_taps(image_embeds, &mut |_, _| {})
    }

    /// As [`forward`](Self::forward), showing `tap` each intermediate: `embeddings`, then
    /// `layers.0`, `layers.1`, …
    pub fn forward_with_taps(
        &self,
        image_embeds: Tensor<3>,
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let [batch, ..] = image_embeds.dims();
        // The queries are the same for every image up to here, so one row is normed.
        let queries = self.dropout.forward(
            self.layer_norm
                .forward(self.query_tokens.val())
                .repeat_dim(0, batch),
        );
        tap("embeddings", &queries);
        let mut hidden = queries;
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward(hidden, &image_embeds);
            tap(&format!("layers.{index}"), &hidden);
        }
        hidden
    }
}
