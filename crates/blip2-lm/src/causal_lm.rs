//! What generation and the caption loss ask of a language model.

use burn::tensor::{Int, Tensor};

use crate::KvCache;

/// A decoder that predicts the next token, fed with embeddings.
///
/// The three steps are apart so that the assembled model can put image queries between token
/// embeddings, and compute logits for the caption's positions only.
pub trait CausalLm {
    /// Looks tokens up.
    ///
    /// # Shapes
    /// - `input_ids`: `[batch, tokens]`
    /// - returns: `[batch, tokens, hidden_size]`, in the precision of the weights
    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3>;

    /// Runs the decoder in the precision of `inputs_embeds`, whatever its weights are kept in.
    ///
    /// With a `cache`, `inputs_embeds` holds only tokens that the cache hasn't seen, and the cache
    /// grows by them. Padding may be on either side; what is returned there has no meaning, but is
    /// finite.
    ///
    /// # Shapes
    /// - `inputs_embeds`: `[batch, tokens, hidden_size]`
    /// - `attention_mask`: `[batch, past + tokens]`, 1 for a token and 0 for padding
    /// - returns: `[batch, tokens, hidden_size]`, what [`logits`](Self::logits) takes
    ///
    /// # Panics
    ///
    /// If the shapes don't fit, as Burn's modules do. A row may hold at most
    /// [`max_positions`](Self::max_positions) ones.
    fn forward(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3>;

    /// Scores every token of the vocabulary, in the precision of `hidden`.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, tokens, hidden_size]`
    /// - returns: `[batch, tokens, vocab_size]`
    fn logits(&self, hidden: Tensor<3>) -> Tensor<3>;

    /// The mean cross-entropy, in nats, of the next token after each row of `hidden` against `ids`;
    /// what [`logits`](Self::logits) and a softmax would give, in memory that does not grow with
    /// the number of rows times the vocabulary.
    ///
    /// # Shapes
    /// - `hidden`: `[tokens, hidden_size]`
    /// - returns: `[1]`
    ///
    /// # Panics
    ///
    /// If there is no token, or `ids` are not as many.
    fn cross_entropy(&self, hidden: Tensor<2>, ids: &[i64]) -> Tensor<1>;

    /// Channels of [`embed`](Self::embed)'s result and of `inputs_embeds`.
    fn hidden_size(&self) -> usize;

    /// Rows of the embedding, which may be more than the tokenizer has.
    fn vocab_size(&self) -> usize;

    /// The most tokens a row can have, padding not counted.
    fn max_positions(&self) -> usize;
}
