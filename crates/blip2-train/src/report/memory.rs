//! What training and captioning need of memory, estimated.

use blip2::checkpoint::{Architecture, Precision};
use burn::tensor::DType;

use super::PartRow;

/// Bytes of an f32.
const F32: usize = 4;

/// The row of the language model.
const LANGUAGE_MODEL: &str = "text_backbone";

/// Text tokens of a caption, for the estimate.
const TEXT_TOKENS: usize = 32;

/// Bytes, without what the backend keeps for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// A training step.
    pub train: usize,
    /// One image.
    pub caption: usize,
}

/// Estimates from the parameters and the largest activations.
///
/// Frozen parts are kept in `towers`, trained ones in f32 with a gradient and two moments. The
/// Q-Former and the language model keep what their backward passes need: per layer and token about
/// 16 values a channel (projections, attention's output, the feed-forward's four) and the weights
/// of attention. A frozen language model in half precision is widened on its way, and the backward
/// pass keeps what was widened. A frozen image encoder keeps nothing.
pub fn memory(
    rows: &[PartRow],
    architecture: &Architecture,
    batch_size: usize,
    towers: Precision,
) -> Estimate {
    let bytes = towers.of(DType::F32).size();
    let weights: usize = rows
        .iter()
        .map(|row| match row.frozen {
            true => row.params * bytes,
            false => row.params * F32,
        })
        .sum();
    let trained: usize = rows
        .iter()
        .filter(|row| !row.frozen)
        .map(|row| row.params * F32)
        .sum();
    let embedding = architecture.text.vocab_size * architecture.text.word_embed_proj_dim;
    let widened: usize = rows
        .iter()
        .filter(|row| row.frozen && row.name == LANGUAGE_MODEL && bytes < F32)
        // The loss widens the embedding a block at a time and keeps none of it.
        .map(|row| row.params.saturating_sub(embedding) * F32)
        .sum();
    let layers = |layers: usize, tokens: usize, width: usize, heads: usize| {
        layers * tokens * (16 * width + tokens * heads) * F32
    };
    let (qformer, text) = (&architecture.qformer, &architecture.text);
    let queries = qformer.num_query_tokens;
    let activations = layers(
        qformer.num_hidden_layers,
        queries,
        qformer.hidden_size,
        qformer.num_attention_heads,
    ) + layers(
        text.num_hidden_layers,
        queries + TEXT_TOKENS,
        text.hidden_size,
        text.num_attention_heads,
    );
    let image = architecture.vision.num_tokens() * 8 * architecture.vision.hidden_size * F32;
    Estimate {
        train: weights + widened + 3 * trained + batch_size * (activations + image),
        caption: weights + image,
    }
}
