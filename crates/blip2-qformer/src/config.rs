//! The architecture of a Q-Former, and its checks.

use burn::nn::Linear;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::QFormerTextConfig;

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
    /// The feed-forward's activation.
    #[serde(default)]
    pub hidden_act: Activation,
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
    /// The text branch of stage 1; a captioner has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<QFormerTextConfig>,
}

/// The feed-forward's activation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The exact GELU, with the error function; BERT's.
    #[default]
    Gelu,
}

impl Activation {
    /// `activation(linear(x))`
    pub(crate) fn after(self, linear: &Linear, x: Tensor<3>) -> Tensor<3> {
        let activation = match self {
            Self::Gelu => blip2_kernels::Activation::Gelu,
        };
        blip2_kernels::linear(x, linear, activation)
    }
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
    /// The paper's Q-Former: BERT base with 32 queries, cross-attention in every other layer, for
    /// image embeddings of `encoder_hidden_size` channels, without text branch.
    ///
    /// Reference: BLIP-2, section 3.1; LAVIS `init_Qformer`.
    pub fn bert_base(encoder_hidden_size: usize) -> Self {
        Self {
            num_query_tokens: 32,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            cross_attention_frequency: 2,
            encoder_hidden_size,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            text: None,
        }
    }

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
        self.text.as_ref().map_or(Ok(()), |text| text.validate())
    }

    /// Whether the layer at `index` reads the image.
    pub fn has_cross_attention(&self, index: usize) -> bool {
        index.is_multiple_of(self.cross_attention_frequency)
    }

    /// Parameters of the Q-Former with its queries, counted without making it.
    pub fn num_params(&self) -> usize {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let linear = |inputs: usize, outputs: usize| inputs * outputs + outputs;
        let norm = 2 * width;
        let attention = |context| 2 * linear(width, width) + 2 * linear(context, width) + norm;
        let crossing = self
            .num_hidden_layers
            .div_ceil(self.cross_attention_frequency);
        let feed_forward = linear(width, inner) + linear(inner, width) + norm;
        let text = self.text.as_ref().map_or(0, |text| {
            text.num_embedding_params(width) + self.num_hidden_layers * feed_forward
        });
        self.num_query_tokens * width
            + norm
            + self.num_hidden_layers * (attention(width) + feed_forward)
            + crossing * attention(self.encoder_hidden_size)
            + text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_values_name_their_field() {
        type Change = fn(&mut QFormerConfig);
        let cases: [(&str, Change); 6] = [
            ("hidden_size", |config| config.num_attention_heads = 7),
            ("num_query_tokens", |config| config.num_query_tokens = 0),
            ("cross_attention_frequency", |config| {
                config.cross_attention_frequency = 0
            }),
            ("hidden_dropout_prob", |config| {
                config.hidden_dropout_prob = 1.0
            }),
            ("attention_probs_dropout_prob", |config| {
                config.attention_probs_dropout_prob = f64::NAN;
            }),
            ("layer_norm_eps", |config| config.layer_norm_eps = 0.0),
        ];
        for (expected, change) in cases {
            let mut config = QFormerConfig::bert_base(1408);
            change(&mut config);
            let QFormerError::Field { field, .. } = config.validate().unwrap_err();
            assert_eq!(field, expected);
        }
        assert_eq!(QFormerConfig::bert_base(1408).validate(), Ok(()));
    }

    #[test]
    fn parameter_count_is_that_of_transformers_blip2_qformer_model() {
        // `Blip2QFormerModel(Blip2QFormerConfig())`, see tests/reference/qformer.py, and 32 queries.
        assert_eq!(
            QFormerConfig::bert_base(1408).num_params(),
            105_137_664 + 32 * 768
        );
        // `use_qformer_text_input=True`, and `Blip2TextEmbeddings`, see qformer_text.py there.
        let config = QFormerConfig {
            text: Some(QFormerTextConfig::bert_base()),
            ..QFormerConfig::bert_base(1408)
        };
        assert_eq!(config.num_params(), 161_825_280 + 23_834_112 + 32 * 768);
    }

    #[test]
    fn a_config_without_text_is_written_and_read_without_the_field() {
        let mut config = QFormerConfig::bert_base(8);
        let json = serde_json::to_value(&config).unwrap();
        assert!(json.get("text").is_none());
        assert_eq!(
            serde_json::from_value::<QFormerConfig>(json).unwrap(),
            config
        );
        config.text = Some(QFormerTextConfig::bert_base());
        let mut json = serde_json::to_value(&config).unwrap();
        assert_eq!(
            serde_json::from_value::<QFormerConfig>(json.clone()).unwrap(),
            config
        );
        json["text"]["type_vocab_size"] = 2.into();
        let error = serde_json::from_value::<QFormerConfig>(json).unwrap_err();
        assert!(error.to_string().contains("type_vocab_size"), "{error}");
    }

    #[test]
    fn unknown_fields_and_activations_are_refused() {
        let json = serde_json::to_string(&QFormerConfig::bert_base(8)).unwrap();
        assert_eq!(
            serde_json::from_str::<QFormerConfig>(&json).unwrap(),
            QFormerConfig::bert_base(8)
        );
        for (from, to) in [("num_query_tokens", "num_queries"), ("gelu", "relu")] {
            let error = serde_json::from_str::<QFormerConfig>(&json.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(to), "{error}");
        }
    }
}
