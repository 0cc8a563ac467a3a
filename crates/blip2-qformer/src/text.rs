//! What text needs before the shared layers: its config and its embeddings.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::layer::weight_initializer;
use crate::{QFormerConfig, QFormerError};

/// The text branch of a Q-Former: embeddings, and a feed-forward in every layer, whose sizes are
/// those of the queries'. Field names are Hugging Face's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QFormerTextConfig {
    /// Words of the tokenizer.
    pub vocab_size: usize,
    /// The longest text, in tokens.
    pub max_position_embeddings: usize,
    /// The word that fills short texts; its embedding starts at zero and is not trained.
    pub pad_token_id: usize,
}

impl QFormerTextConfig {
    /// BERT base, uncased. LAVIS appends one word to the vocabulary, `[DEC]`, which begins a caption.
    ///
    /// Reference: LAVIS `Blip2Base.init_tokenizer`.
    pub fn bert_base() -> Self {
        Self {
            vocab_size: 30522,
            max_position_embeddings: 512,
            pad_token_id: 0,
        }
    }

    /// Checks that there are words and positions.
    ///
    /// # Errors
    ///
    /// Names the field, as seen from [`QFormerConfig`].
    pub fn validate(&self) -> Result<(), QFormerError> {
        for (field, value) in [
            ("text.vocab_size", self.vocab_size),
            ("text.max_position_embeddings", self.max_position_embeddings),
        ] {
            if value == 0 {
                let reason = "must be at least 1".into();
                return Err(QFormerError::Field { field, reason });
            }
        }
        if self.pad_token_id >= self.vocab_size {
            return Err(QFormerError::Field {
                field: "text.pad_token_id",
                reason: format!(
                    "{} is not in the vocabulary: `vocab_size` is {}",
                    self.pad_token_id, self.vocab_size
                ),
            });
        }
        Ok(())
    }

    /// Parameters of the embeddings, `hidden_size` wide.
    pub(crate) fn num_embedding_params(&self, hidden_size: usize) -> usize {
        (self.vocab_size + self.max_position_embeddings) * hidden_size
    }
}

/// Word and position embeddings; the norm that follows is the queries' too.
#[derive(Module, Debug)]
pub struct TextEmbeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    pad_token_id: usize,
}

impl TextEmbeddings {
    pub(crate) fn new(text: &QFormerTextConfig, config: &QFormerConfig, device: &Device) -> Self {
        let embedding = |rows| {
            EmbeddingConfig::new(rows, config.hidden_size)
                .with_initializer(weight_initializer(config))
                .init(device)
        };
        let pad = text.pad_token_id;
        let mut word_embeddings: Embedding = embedding(text.vocab_size);
        word_embeddings.weight = word_embeddings
            .weight
            .init_mapper(move |weight| weight.slice_fill(pad..pad + 1, 0.0));
        Self {
            word_embeddings,
            position_embeddings: embedding(text.max_position_embeddings),
            pad_token_id: pad,
        }
    }

    /// The sum of word and position; the first token has position 0.
    ///
    /// # Shapes
    /// - `input_ids`: `[batch, tokens]`
    /// - returns: `[batch, tokens, hidden]`
    ///
    /// # Panics
    ///
    /// If there are more tokens than positions.
    pub fn forward(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, tokens] = input_ids.dims();
        let most = self.max_tokens();
        assert!(
            tokens <= most,
            "a text of {tokens} tokens is longer than the {most} position embeddings"
        );
        let positions = self.position_embeddings.weight.val().narrow(0, 0, tokens);
        self.embed_words(input_ids) + positions.unsqueeze::<3>()
    }

    /// The words alone, which BERT's language-model head shares: `[vocab_size, hidden]`.
    pub fn words(&self) -> Tensor<2> {
        self.word_embeddings.weight.val()
    }

    /// The longest text that has positions.
    pub fn max_tokens(&self) -> usize {
        self.position_embeddings.weight.lazy_shape()[0]
    }

    fn embed_words(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        let words = self.word_embeddings.forward(input_ids.clone());
        if !words.is_autodiff() {
            return words;
        }
        // What torch's `padding_idx` does, which the references set.
        let padding = input_ids
            .equal_scalar(self.pad_token_id as i64)
            .unsqueeze_dim::<3>(2)
            .expand(words.dims());
        words.clone().mask_where(padding, words.detach())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> QFormerTextConfig {
        QFormerTextConfig {
            vocab_size: 50,
            max_position_embeddings: 6,
            pad_token_id: 3,
        }
    }

    #[test]
    fn impossible_values_name_their_field() {
        type Change = fn(&mut QFormerTextConfig);
        let cases: [(&str, Change); 3] = [
            ("text.vocab_size", |text| text.vocab_size = 0),
            ("text.max_position_embeddings", |text| {
                text.max_position_embeddings = 0;
            }),
            ("text.pad_token_id", |text| text.pad_token_id = 50),
        ];
        for (expected, change) in cases {
            let mut text = text();
            change(&mut text);
            let config = QFormerConfig {
                text: Some(text),
                ..QFormerConfig::bert_base(8)
            };
            let QFormerError::Field { field, .. } = config.validate().unwrap_err();
            assert_eq!(field, expected);
        }
        assert_eq!(QFormerTextConfig::bert_base().validate(), Ok(()));
    }

    #[test]
    fn words_start_with_the_standard_deviation_of_the_config_and_padding_with_zero() {
        for device in [Device::default(), Device::default().autodiff()] {
            let config = QFormerConfig {
                initializer_range: 0.05,
                hidden_size: 80,
                ..QFormerConfig::bert_base(8)
            };
            let embeddings = TextEmbeddings::new(&text(), &config, &device);
            assert_eq!(embeddings.num_params(), text().num_embedding_params(80));
            let words = embeddings.words();
            assert_eq!(words.is_require_grad(), words.is_autodiff());
            let padding = words.clone().narrow(0, 3, 1).abs().max();
            assert_eq!(padding.into_scalar::<f32>(), 0.0);
            let std = words.square().mean().sqrt().into_scalar::<f32>();
            // 3920 of 4000 numbers are drawn: 1 % less, with a standard error of 1.1 %.
            assert!((std / 0.05 - 0.99).abs() < 0.06, "{std}");
        }
    }

    #[test]
    #[should_panic(expected = "7 tokens is longer than the 6 position embeddings")]
    fn a_text_without_enough_positions_is_refused() {
        let device = Device::default();
        let embeddings = TextEmbeddings::new(&text(), &QFormerConfig::bert_base(8), &device);
        embeddings.forward(Tensor::zeros([1, 7], &device));
    }
}
