//! One Q-Former layer.

use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::attention::KeyValue;
use crate::{Activation, Attention, QFormerConfig, ResidualOutput};

/// The image as a layer reads it.
#[derive(Debug, Clone, Copy)]
pub enum Image<'a> {
    /// `image_embeds`: `[batch, image_tokens, encoder_hidden]`.
    Embeds(&'a Tensor<3>),
    /// This layer's keys and values of them, which other passes share; none in a layer without
    /// cross-attention.
    Keys(Option<&'a KeyValue>),
}

/// Self-attention, cross-attention in every n-th layer, feed-forward; each followed by a norm.
///
/// Reference: BLIP-2, figure 2. Queries and text share self-attention, but each has its own
/// feed-forward, and only the queries read the image.
#[derive(Module, Debug)]
pub struct Layer {
    attention: Attention,
    crossattention: Option<Attention>,
    intermediate_query: Linear,
    output_query: ResidualOutput,
    /// The text's, as `output`; none without a text branch.
    intermediate: Option<Linear>,
    output: Option<ResidualOutput>,
    #[module(skip)]
    activation: Activation,
}

impl Layer {
    pub(crate) fn new(index: usize, config: &QFormerConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let text = config.text.as_ref();
        Self {
            attention: Attention::new(width, config, device),
            crossattention: config
                .has_cross_attention(index)
                .then(|| Attention::new(config.encoder_hidden_size, config, device)),
            intermediate_query: linear(width, inner, config, device),
            output_query: ResidualOutput::new(inner, config, device),
            intermediate: text.map(|_| linear(width, inner, config, device)),
            output: text.map(|_| ResidualOutput::new(inner, config, device)),
            activation: config.hidden_act,
        }
    }

    /// Queries alone.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, queries, hidden]`
    /// - returns: `[batch, queries, hidden]`
    pub fn forward(&self, hidden: Tensor<3>, image: Image<'_>) -> Tensor<3> {
        let hidden = self.attention.forward(hidden, None, None);
        self.finish_queries(hidden, image)
    }

    /// What cross-attention reads of `image_embeds`; none without cross-attention.
    pub fn image_keys(&self, image_embeds: &Tensor<3>) -> Option<KeyValue> {
        let crossattention = self.crossattention.as_ref()?;
        Some(crossattention.keys(image_embeds.clone()))
    }

    /// Text alone.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, tokens, hidden]`
    /// - `bias`: `[batch, 1, 1 or tokens, tokens]`
    /// - returns: `[batch, tokens, hidden]`
    ///
    /// # Panics
    ///
    /// Without a text branch.
    pub fn forward_text(&self, hidden: Tensor<3>, bias: &Tensor<4>) -> Tensor<3> {
        self.finish_text(self.attention.forward(hidden, None, Some(bias)))
    }

    /// Text after queries that another pass has read: it sees them, they do not see it.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, tokens, hidden]`
    /// - `queries`: what entered this layer in that pass, `[batch, queries, hidden]`
    /// - `bias`: `[batch, 1, tokens, queries + tokens]`
    /// - returns: `[batch, tokens, hidden]`
    ///
    /// # Panics
    ///
    /// Without a text branch.
    pub fn forward_text_after(
        &self,
        hidden: Tensor<3>,
        queries: Tensor<3>,
        bias: &Tensor<4>,
    ) -> Tensor<3> {
        let seen = Tensor::cat(vec![queries, hidden.clone()], 1);
        self.finish_text(self.attention.forward(hidden, Some(seen), Some(bias)))
    }

    /// Queries and text together; only the queries read the image.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, queries + tokens, hidden]`, queries first
    /// - `bias`: `[batch, 1, 1 or queries + tokens, queries + tokens]`
    /// - returns: `[batch, queries + tokens, hidden]`
    ///
    /// # Panics
    ///
    /// Without a text branch.
    pub fn forward_multimodal(
        &self,
        hidden: Tensor<3>,
        queries: usize,
        bias: &Tensor<4>,
        image: Image<'_>,
    ) -> Tensor<3> {
        let hidden = self.attention.forward(hidden, None, Some(bias));
        let [_, all, _] = hidden.dims();
        let text = hidden.clone().narrow(1, queries, all - queries);
        let queries = self.finish_queries(hidden.narrow(1, 0, queries), image);
        Tensor::cat(vec![queries, self.finish_text(text)], 1)
    }

    /// What follows self-attention for queries.
    fn finish_queries(&self, mut hidden: Tensor<3>, image: Image<'_>) -> Tensor<3> {
        if let Some(crossattention) = &self.crossattention {
            let keys = match image {
                Image::Embeds(image_embeds) => crossattention.keys(image_embeds.clone()),
                Image::Keys(keys) => keys.expect("this layer made them").clone(),
            };
            hidden = crossattention.attend(hidden, keys, None);
        }
        let inner = self
            .activation
            .after(&self.intermediate_query, hidden.clone());
        self.output_query.forward(inner, hidden)
    }

    /// What follows self-attention for text.
    fn finish_text(&self, hidden: Tensor<3>) -> Tensor<3> {
        let (Some(intermediate), Some(output)) = (&self.intermediate, &self.output) else {
            panic!("{NO_TEXT_BRANCH}");
        };
        let inner = self.activation.after(intermediate, hidden.clone());
        output.forward(inner, hidden)
    }

    /// Whether this layer reads the image.
    pub fn crosses(&self) -> bool {
        self.crossattention.is_some()
    }
}

pub(crate) const NO_TEXT_BRANCH: &str =
    "this Q-Former has no text branch: its config has no `text`";

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
