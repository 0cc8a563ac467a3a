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

/// A product of matrices: `[rows, inner]` and `[inner, columns]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Product {
    /// Of the result.
    pub rows: usize,
    /// Summed over.
    pub inner: usize,
    /// Of the result.
    pub columns: usize,
    /// Of the numbers.
    pub precision: Precision,
    /// Bits of a number of the weight.
    pub weight_bits: usize,
    /// Which side is transposed.
    pub layout: Layout,
    /// What is done to it.
    pub after: After,
}

impl Product {
    /// Floating-point operations; a multiplication and an addition are two.
    pub fn flops(&self) -> f64 {
        2.0 * self.rows as f64 * self.inner as f64 * self.columns as f64
    }

    fn bytes(&self) -> f64 {
        let numbers = self.rows * self.inner + self.rows * self.columns;
        let weight = self.inner as f64 * self.columns as f64 * self.weight_bits as f64 / 8.0;
        (numbers * F32) as f64 + weight
    }
}

/// Softmax attention of `queries` to `keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attention {
    /// Rows of the batch.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Tokens that look.
    pub queries: usize,
    /// Tokens that are looked at.
    pub keys: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Whether it is the gradient, which makes the weights again.
    pub backward: bool,
}

impl Attention {
    /// As [`Product::flops`].
    pub fn flops(&self) -> f64 {
        // Scores and their use; backward makes scores again and four gradients.
        let products = if self.backward { 5.0 } else { 2.0 };
        let looks = self.batch as f64 * self.heads as f64;
        let pairs = looks * self.queries as f64 * self.keys as f64;
        products * 2.0 * pairs * self.head_dim as f64
    }

    fn bytes(&self) -> f64 {
        let channels = self.batch * self.heads * self.head_dim;
        let once = channels * (2 * self.queries + 2 * self.keys) * F32;
        (if self.backward { 2 * once } else { once }) as f64
    }
}

/// One operation of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// A product of matrices.
    Product(Product),
    /// Attention.
    Attention(Attention),
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
        match self {
            Self::Product(product) => product.flops(),
            Self::Attention(attention) => attention.flops(),
            // Counted by what they move.
            Self::Pass { .. } | Self::Update { .. } => 0.0,
        }
    }

    /// Bytes between the device's memory and its processor, if nothing stays in a cache.
    pub fn bytes(&self) -> f64 {
        match self {
            Self::Product(product) => product.bytes(),
            Self::Attention(attention) => attention.bytes(),
            Self::Pass { bytes } => *bytes as f64,
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
        let product = Product {
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
        let attention = |backward| Attention {
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
