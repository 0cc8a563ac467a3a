//! One Q-Former layer, on the side of the queries.

use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::{Activation, Attention, QFormerConfig, ResidualOutput};

/// Self-attention, cross-attention in every n-th layer, feed-forward; each followed by a norm.
///
/// Reference: BLIP-2, figure 2; the feed-forward is the queries' own (`intermediate_query`), text
/// has another in stage 1.
#[derive(Module, Debug)]
pub struct Layer {
    attention: Attention,
    crossattention: Option<Attention>,
    intermediate_query: Linear,
    output_query: ResidualOutput,
    #[module(skip)]
    activation: Activation,
}

impl Layer {
    pub(crate) fn new(index: usize, config: &QFormerConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        Self {
            attention: Attention::new(width, config, device),
            crossattention: config
                .has_cross_attention(index)
                .then(|| Attention::new(config.encoder_hidden_size, config, device)),
            intermediate_query: linear(width, inner, config, device),
            output_query: ResidualOutput::new(inner, config, device),
            activation: config.hidden_act,
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
        let inner = self.intermediate_query.forward(hidden.clone());
        self.output_query
            .forward(self.activation.forward(inner), hidden)
    }

    /// Whether this layer reads the image.
    pub fn crosses(&self) -> bool {
        self.crossattention.is_some()
    }
}

/// BERT draws its weights, and LAVIS the queries, from a normal distribution.
pub(crate) fn weight_initializer(config: &QFormerConfig) -> Initializer {
    Initializer::Normal {
        mean: 0.0,
        std: config.initializer_range,
    }
}

/// A linear layer whose bias starts at zero; Burn would draw it like the weight.
pub(crate) fn linear(
    inputs: usize,
    outputs: usize,
    config: &QFormerConfig,
    device: &Device,
) -> Linear {
    let mut linear = LinearConfig::new(inputs, outputs)
        .with_bias(false)
        .with_initializer(weight_initializer(config))
        .init(device);
    linear.bias = Some(Initializer::Zeros.init([outputs], device));
    linear
}
