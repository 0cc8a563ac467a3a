//! What training and captioning need of memory, estimated.

use blip2::checkpoint::{Architecture, Precision};
use burn::tensor::DType;

use super::PartRow;

/// Bytes of an f32.
const F32: usize = 4;

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

/// Estimates from the parameters and the largest activations, for the CPU backend.
///
/// Frozen parts are kept in `towers`, trained ones in f32 with a gradient and two moments. The
/// Q-Former and the language model keep what their backward passes need: per layer and token about
/// 16 values a channel (projections, attention's output, the feed-forward's four). Attention weights and
/// widened matrices are made again for the gradient; other backends keep them. A frozen image encoder
/// keeps nothing.
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
    let layers = |layers: usize, tokens: usize, width: usize| layers * tokens * 16 * width * F32;
    let (qformer, text) = (&architecture.qformer, &architecture.text);
    let queries = qformer.num_query_tokens;
    let activations = layers(qformer.num_hidden_layers, queries, qformer.hidden_size)
        + layers(
            text.num_hidden_layers,
            queries + TEXT_TOKENS,
            text.hidden_size,
        );
    let image = architecture.vision.num_tokens() * 8 * architecture.vision.hidden_size * F32;
    Estimate {
        train: weights + 3 * trained + batch_size * (activations + image),
        caption: weights + image,
    }
}
