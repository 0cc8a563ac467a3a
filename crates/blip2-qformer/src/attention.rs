//! BERT attention: to the queries themselves, or across to the image.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::{Device, Tensor};

use crate::QFormerConfig;
use crate::layer::initializer;

/// Multi-head attention with its output layer: `norm(hidden + dense(attention(hidden, context)))`.
#[derive(Module, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    dropout: Dropout,
    output: AttentionOutput,
    num_heads: usize,
}

/// What follows attention or a feed-forward in BERT: projection, dropout, residual, norm.
#[derive(Module, Debug)]
pub struct AttentionOutput {
    dense: Linear,
    layer_norm: LayerNorm,
    dropout: Dropout,
}

impl AttentionOutput {
    pub(crate) fn new(inputs: usize, config: &QFormerConfig, device: &Device) -> Self {
        Self {
            dense: LinearConfig::new(inputs, config.hidden_size)
                .with_initializer(initializer(config))
                .init(device),
            layer_norm: LayerNormConfig::new(config.hidden_size)
                .with_epsilon(config.layer_norm_eps)
                .init(device),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
        }
    }

    pub(crate) fn forward(&self, hidden: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let hidden = self.dropout.forward(self.dense.forward(hidden));
        self.layer_norm.forward(hidden + residual)
    }
}

impl Attention {
    /// Attention whose keys and values come from a context of `context_width` channels.
    pub(crate) fn new(context_width: usize, config: &QFormerConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let linear = |inputs| {
            LinearConfig::new(inputs, width)
                .with_initializer(initializer(config))
                .init(device)
        };
        Self {
            query: linear(width),
            key: linear(context_width),
            value: linear(context_width),
            dropout: DropoutConfig::new(config.attention_probs_dropout_prob).init(),
            output: AttentionOutput::new(width, config, device),
            num_heads: config.num_attention_heads,
        }
    }

    /// # Shapes
    /// - `hidden`: `[batch, queries, hidden]`
    /// - `context`: `[batch, tokens, context_width]`; none attends to `hidden` itself
    /// - returns: `[batch, queries, hidden]`
    pub fn forward(&self, hidden: Tensor<3>, context: Option<Tensor<3>>) -> Tensor<3> {
        let context = context.unwrap_or_else(|| hidden.clone());
        let query = self.heads(self.query.forward(hidden.clone()));
        let key = self.heads(self.key.forward(context.clone()));
        let value = self.heads(self.value.forward(context));
        let [batch, _, queries, head_dim] = query.dims();
        let attended = if query.is_autodiff() {
            // Burn's attention has neither dropout nor a backward pass of its own.
            let scores = query
                .mul_scalar((head_dim as f64).powf(-0.5))
                .matmul(key.transpose());
            self.dropout.forward(softmax(scores, 3)).matmul(value)
        } else {
            attention(query, key, value, None, None, Default::default())
        };
        let attended =
            attended
                .swap_dims(1, 2)
                .reshape([batch, queries, self.num_heads * head_dim]);
        self.output.forward(attended, hidden)
    }

    fn heads(&self, projected: Tensor<3>) -> Tensor<4> {
        let [batch, tokens, width] = projected.dims();
        projected
            .reshape([batch, tokens, self.num_heads, width / self.num_heads])
            .swap_dims(1, 2)
    }
}
