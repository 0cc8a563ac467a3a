//! The architecture of a Q-Former, and its checks.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A BERT encoder with cross-attention to the image, read by learned queries. Field names are
/// Hugging Face's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QFormerConfig {
    /// Learned queries; 32 in the paper.
    pub num_query_tokens: usize,
    /// Channels of a query.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Channels inside the feed-forward.
    pub intermediate_size: usize,
    /// Every how many layers there is cross-attention, from layer 0; 2 in the paper.
    pub cross_attention_frequency: usize,
    /// Channels of the image embeddings.
    pub encoder_hidden_size: usize,
    /// Dropout after embeddings, attention and feed-forward.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention weights.
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of initial weights and queries.
    pub initializer_range: f64,
    /// The epsilon of the norms; 1e-12 in BERT.
    pub layer_norm_eps: f64,
}

/// An impossible architecture.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum QFormerError {
    /// A field has a value that can't work.
    #[error("field `{field}`: {reason}")]
    Field {
        /// The field of [`QFormerConfig`].
        field: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl QFormerConfig {
    /// Checks that the dimensions fit each other.
    ///
    /// # Errors
    ///
    /// Names the field.
    pub fn validate(&self) -> Result<(), QFormerError> {
        let error = |field, reason: String| Err(QFormerError::Field { field, reason });
        for (field, value) in [
            ("num_query_tokens", self.num_query_tokens),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("cross_attention_frequency", self.cross_attention_frequency),
            ("encoder_hidden_size", self.encoder_hidden_size),
        ] {
            if value == 0 {
                return error(field, "must be at least 1".into());
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let reason = format!(
                "{} is not divisible by `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            );
            return error("hidden_size", reason);
        }
        for (field, value) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
        ] {
            if !(0.0..1.0).contains(&value) {
                return error(field, format!("{value} is not in [0, 1)"));
            }
        }
        for (field, value) in [
            ("initializer_range", self.initializer_range),
            ("layer_norm_eps", self.layer_norm_eps),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return error(field, format!("{value} is not a positive number"));
            }
        }
        Ok(())
    }
}
