//! What a part of the model makes a device do: products, attentions, passes over memory.

use std::fmt;
use std::hash::Hash;

use serde::Serialize;

/// Bytes of an f32.
pub const F32: usize = 4;

/// A line of the plan's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The image encoder.
    VisionBackbone,
    /// The LayerNorm after it.
    LnVision,
    /// The Q-Former.
    MultimodalBackbone,
    /// From the Q-Former to the language model.
    VisionNeck,
    /// The language model.
    TextBackbone,
    /// What is compared or predicted: logits and loss, the heads of stage 1.
    Head,
    /// Gradient norm and AdamW.
    Optimizer,
    /// Reading, decoding and resizing images.
    Data,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::VisionBackbone => "image encoder",
            Self::LnVision => "vision LayerNorm",
            Self::MultimodalBackbone => "Q-Former",
            Self::VisionNeck => "vision neck",
            Self::TextBackbone => "language model",
            Self::Head => "logits and loss",
            Self::Optimizer => "optimizer",
            Self::Data => "images",
        })
    }
}

/// One way or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From images to the loss.
    Forward,
    /// From the loss back.
    Backward,
}

/// The precision of the numbers that are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits, with sums in 32.
    Bf16,
}

/// Which side of a product is transposed: the loops over memory differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// `x · weight`
    Plain,
    /// `x · weightᵀ`: logits, and what a linear layer passes back.
    Transposed,
    /// `xᵀ · grads`: the gradient of a weight.
    WeightGrad,
}

/// What a linear layer does to a product, in the same pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum After {
    /// Nothing.
    Nothing,
    /// Adds a bias.
    Bias,
    /// Adds a bias, then GELU.
    Gelu,
    /// Adds a bias, then `max(x, 0)`.
    Relu,
}

/// One operation of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// A product of matrices: `[rows, inner]` and `[inner, columns]`.
    Product {
        /// Of the result.
        rows: usize,
        /// Summed over.
        inner: usize,
        /// Of the result.
        columns: usize,
        /// Of the numbers.
        precision: Precision,
        /// Bits of a number of the weight.
        weight_bits: usize,
        /// Which side is transposed.
        layout: Layout,
        /// What is done to it.
        after: After,
    },
    /// Softmax attention of `queries` to `keys`.
    Attention {
        /// Rows of the batch.
        batch: usize,
        /// Heads.
        heads: usize,
        /// Tokens that look.
        queries: usize,
        /// Tokens that are looked at.
        keys: usize,
        /// Channels of a head.
        head_dim: usize,
        /// Whether it is the gradient, which makes the weights again.
        backward: bool,
    },
    /// A pass over numbers: norms, sums, copies.
    Pass {
        /// Read and written.
        bytes: usize,
    },
    /// A step of AdamW.
    Update {
        /// Parameters.
        numbers: usize,
    },
}

impl Operation {
    /// Floating-point operations; a multiplication and an addition are two.
    pub fn flops(&self) -> f64 {
        match *self {
            Self::Product {
                rows,
                inner,
                columns,
                ..
            } => 2.0 * rows as f64 * inner as f64 * columns as f64,
            Self::Attention {
                batch,
                heads,
                queries,
                keys,
                head_dim,
                backward,
            } => {
                // Scores and their use; backward makes scores again and four gradients.
                let products = if backward { 5.0 } else { 2.0 };
                let pairs = batch as f64 * heads as f64 * queries as f64 * keys as f64;
                products * 2.0 * pairs * head_dim as f64
            }
            // Counted by what they move.
            Self::Pass { .. } | Self::Update { .. } => 0.0,
        }
    }

    /// Bytes between the device's memory and its processor, if nothing stays in a cache.
    pub fn bytes(&self) -> f64 {
        match *self {
            Self::Product {
                rows,
                inner,
                columns,
                weight_bits,
                ..
            } => {
                let numbers = rows * inner + rows * columns;
                (numbers * F32) as f64 + inner as f64 * columns as f64 * weight_bits as f64 / 8.0
            }
            Self::Attention {
                batch,
                heads,
                queries,
                keys,
                head_dim,
                backward,
            } => {
                let once = batch * heads * head_dim * (2 * queries + 2 * keys) * F32;
                (if backward { 2 * once } else { once }) as f64
            }
            Self::Pass { bytes } => bytes as f64,
            // Weight and two moments read and written, the gradient read.
            Self::Update { numbers } => (7 * F32 * numbers) as f64,
        }
    }
}

/// An operation, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Work {
    /// The part of the model.
    pub part: Part,
    /// Forward or backward.
    pub direction: Direction,
    /// What is done.
    pub operation: Operation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_attentions_are_counted_as_by_hand() {
        let product = Operation::Product {
            rows: 3,
            inner: 4,
            columns: 5,
            precision: Precision::F32,
            weight_bits: 16,
            layout: Layout::Plain,
            after: After::Bias,
        };
        assert_eq!(product.flops(), 2.0 * 60.0);
        assert_eq!(product.bytes(), (4 * (12 + 15) + 2 * 20) as f64);
        let attention = |backward| Operation::Attention {
            batch: 2,
            heads: 3,
            queries: 5,
            keys: 7,
            head_dim: 4,
            backward,
        };
        // q · kᵀ and weights · v for 2 · 3 heads.
        assert_eq!(
            attention(false).flops(),
            2.0 * 6.0 * 2.0 * (5 * 7 * 4) as f64
        );
        assert_eq!(attention(true).flops(), 2.5 * attention(false).flops());
    }
}
