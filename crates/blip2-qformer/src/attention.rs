//! BERT attention: to the queries themselves, or across to the image.

use blip2_kernels::{Activation, attention};
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Int, Tensor};

use crate::layer::linear;
use crate::{QFormerConfig, ResidualOutput};

/// Multi-head attention with its output: `norm(hidden + dropout(dense(attention)))`.
#[derive(Module, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    /// On attention weights.
    dropout: Dropout,
    output: ResidualOutput,
    num_heads: usize,
}

/// What attention reads of a context: `[batch, tokens, hidden]` each.
#[derive(Debug, Clone)]
pub struct KeyValue {
    key: Tensor<3>,
    value: Tensor<3>,
}

impl KeyValue {
    /// The rows of the batch at `indices`, which may repeat.
    pub fn select(&self, indices: Tensor<1, Int>) -> Self {
        Self {
            key: self.key.clone().select(0, indices.clone()),
            value: self.value.clone().select(0, indices),
        }
    }
}

impl Attention {
    /// Attention whose keys and values come from a context of `context_width` channels.
    pub(crate) fn new(context_width: usize, config: &QFormerConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            query: linear(width, width, config, device),
            key: linear(context_width, width, config, device),
            value: linear(context_width, width, config, device),
            dropout: DropoutConfig::new(config.attention_probs_dropout_prob).init(),
            output: ResidualOutput::new(width, config, device),
            num_heads: config.num_attention_heads,
        }
    }

    /// # Shapes
    /// - `hidden`: `[batch, queries, hidden]`
    /// - `context`: `[batch, tokens, context_width]`; none attends to `hidden` itself
    /// - `bias`: `[batch, 1, 1 or queries, tokens]`, added to the scores of all heads
    /// - returns: `[batch, queries, hidden]`
    pub fn forward(
        &self,
        hidden: Tensor<3>,
        context: Option<Tensor<3>>,
        bias: Option<&Tensor<4>>,
    ) -> Tensor<3> {
        let context = context.unwrap_or_else(|| hidden.clone());
        let keys = self.keys(context);
        self.attend(hidden, keys, bias)
    }

    /// Keys and values of a context, which may serve more than one [`attend`](Self::attend).
    ///
    /// # Shapes
    /// - `context`: `[batch, tokens, context_width]`
    pub fn keys(&self, context: Tensor<3>) -> KeyValue {
        KeyValue {
            key: project(context.clone(), &self.key),
            value: project(context, &self.value),
        }
    }

    /// As [`forward`](Self::forward), to what [`keys`](Self::keys) gave.
    pub fn attend(&self, hidden: Tensor<3>, keys: KeyValue, bias: Option<&Tensor<4>>) -> Tensor<3> {
        let query = project(hidden.clone(), &self.query);
        let KeyValue { key, value } = keys;
        let dropout = Some(&self.dropout);
        let attended = attention(query, key, value, bias, self.num_heads, dropout);
        self.output.forward(attended, hidden)
    }
}

fn project(x: Tensor<3>, linear: &Linear) -> Tensor<3> {
    blip2_kernels::linear(x, linear, Activation::None)
}
