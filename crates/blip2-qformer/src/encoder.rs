//! The Q-Former with its queries.

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, LayerNorm};
use burn::tensor::{Device, Tensor};

use crate::layer::weight_initializer;
use crate::residual::norm;
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
        let queries = [1, self.num_query_tokens, self.hidden_size];
        Ok(QFormer {
            query_tokens: weight_initializer(self).init(queries, device),
            layer_norm: norm(self, device),
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
    /// - `image_embeds`: `[batch, image_tokens, encoder_hidden]`, of any float type
    /// - returns: `[batch, num_query_tokens, hidden]`, of the weights' type
    ///
    /// Reference: BLIP-2, section 3.1.
    pub fn forward(&self, image_embeds: Tensor<3>) -> Tensor<3> {
        self.forward_with_taps(image_embeds, &mut |_, _| {})
    }

    /// As [`forward`](Self::forward), showing `tap` each intermediate: `embeddings` (the normed
    /// queries), then `layer.0`, `layer.1`, …
    pub fn forward_with_taps(
        &self,
        image_embeds: Tensor<3>,
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let [batch, ..] = image_embeds.dims();
        let query_tokens = self.query_tokens.val();
        // A half-precision image encoder may stand before us.
        let image_embeds = image_embeds.cast(query_tokens.dtype());
        // The queries are the same for every image up to here, so one row is normed; dropout
        // differs by image.
        let queries = self.layer_norm.forward(query_tokens).repeat_dim(0, batch);
        let mut hidden = self.dropout.forward(queries);
        tap("embeddings", &hidden);
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward(hidden, &image_embeds);
            tap(&format!("layer.{index}"), &hidden);
        }
        hidden
    }

    /// Queries an image is read with.
    pub fn num_query_tokens(&self) -> usize {
        self.query_tokens.lazy_shape()[1]
    }

    /// Channels of a query.
    pub fn hidden_size(&self) -> usize {
        self.query_tokens.lazy_shape()[2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(cross_attention_frequency: usize) -> QFormerConfig {
        QFormerConfig {
            num_query_tokens: 40,
            hidden_size: 60,
            num_hidden_layers: 3,
            num_attention_heads: 6,
            intermediate_size: 20,
            cross_attention_frequency,
            initializer_range: 0.05,
            ..QFormerConfig::bert_base(10)
        }
    }

    #[test]
    fn counted_parameters_are_those_of_the_module() {
        for frequency in 1..=4 {
            let config = tiny(frequency);
            let module = config.init(&Device::default()).unwrap();
            assert_eq!(module.num_params(), config.num_params());
            let crossing = module.layers.iter().filter(|layer| layer.crosses()).count();
            assert_eq!(crossing, [3, 2, 1, 1][frequency - 1]);
        }
    }

    #[test]
    fn initial_queries_have_the_standard_deviation_of_the_config() {
        let module = tiny(2).init(&Device::default()).unwrap();
        let std = module.query_tokens.val().square().mean().sqrt();
        let std = std.into_scalar::<f32>();
        // 2400 draws: the standard error is 1.4 %.
        assert!((std / 0.05 - 1.0).abs() < 0.07, "{std}");
        assert_eq!((module.num_query_tokens(), module.hidden_size()), (40, 60));
    }

    #[test]
    fn an_image_does_not_see_the_others_of_its_batch() {
        let device = Device::default();
        let module = tiny(2).init(&device).unwrap();
        let distribution = burn::tensor::Distribution::Normal(0.0, 1.0);
        let images = Tensor::<3>::random([3, 7, 10], distribution, &device);
        let together = module.forward(images.clone());
        for index in 0..3 {
            let alone = module.forward(images.clone().narrow(0, index, 1));
            let difference = (together.clone().narrow(0, index, 1) - alone).abs().max();
            // f32 products of other sizes may add in another order.
            assert!(difference.into_scalar::<f32>() < 1e-5);
        }
    }
}
