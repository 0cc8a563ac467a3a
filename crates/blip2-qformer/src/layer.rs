//! One Q-Former layer, on the side of the queries.

use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor};

use crate::{Attention, AttentionOutput, QFormerConfig};

/// Self-attention, cross-attention in every n-th layer, feed-forward; each followed by a norm.
///
/// Reference: BLIP-2, figure 2; the feed-forward is the queries' own (`intermediate_query`), text
/// has another in stage 1.
#[derive(Module, Debug)]
pub struct Layer {
    attention: Attention,
    crossattention: Option<Attention>,
    intermediate_query: Linear,
    output_query: AttentionOutput,
}

/// BERT draws its weights from a normal distribution.
pub(crate) fn initializer(config: &QFormerConfig) -> Initializer {
    Initializer::Normal {
        mean: 0.0,
        std: config.initializer_range,
    }
}

impl Layer {
    pub(crate) fn new(index: usize, config: &QFormerConfig, device: &Device) -> Self {
        let crosses = index.is_multiple_of(config.cross_attention_frequency);
        Self {
            attention: Attention::new(config.hidden_size, config, device),
            crossattention: crosses
                .then(|| Attention::new(config.encoder_hidden_size, config, device)),
            intermediate_query: LinearConfig::new(config.hidden_size, config.intermediate_size)
                .with_initializer(initializer(config))
                .init(device),
            output_query: AttentionOutput::new(config.intermediate_size, config, device),
        }
    }

    /// # Shapes
    /// - `hidden`: `[batch, queries, hidden]`
    /// - `image_embeds`: `[batch, tokens, encoder_hidden]`
    /// - returns: `[batch, queries, hidden]`
    pub fn forward(&self, hidden: Tensor<3>, image_embeds: &Tensor<3>) -> Tensor<3> {
        let mut hidden = self.attention.forward(hidden, None);
        if let Some(crossattention) = &self.crossattention {
            hidden = crossattention.forward(hidden, Some(image_embeds.clone()));
        }
        let inner = gelu(self.intermediate_query.forward(hidden.clone()));
        self.output_query.forward(inner, hidden)
    }
}
