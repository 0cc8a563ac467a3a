//! BERT attention: to the queries themselves, or across to the image.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::{Device, Tensor};

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
        let query = self.heads(self.query.forward(hidden.clone()));
        let key = self.heads(self.key.forward(context.clone()));
        let value = self.heads(self.value.forward(context));
        let [batch, _, queries, head_dim] = query.dims();
        let attended = if self.dropout.prob > 0.0 && query.is_autodiff() {
            // Burn's attention can't drop weights.
            let scores = query.matmul(key.transpose());
            let mut scores = scores.div_scalar((head_dim as f64).sqrt());
            if let Some(bias) = bias {
                scores = scores + bias.clone();
            }
            self.dropout.forward(softmax(scores, 3)).matmul(value)
        } else {
            attention(query, key, value, None, bias.cloned(), Default::default())
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
