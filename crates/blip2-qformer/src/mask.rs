//! Who sees whom in self-attention when there is text.

use burn::tensor::ops::PadMode;
use burn::tensor::{Bool, DType, FloatDType, Int, Tensor};

/// What queries and text see of each other when they share self-attention. Padding of the text is
/// never seen.
///
/// Reference: BLIP-2, figure 2. The paper's third mask, the uni-modal one of image-text
/// contrast, needs no kind: there queries and text are two passes,
/// [`forward`](crate::QFormer::forward) and [`forward_text`](crate::QFormer::forward_text).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextMask {
    /// All see all: image-text matching.
    Bidirectional,
    /// Queries see the queries only; a token sees all queries, itself and earlier tokens:
    /// image-grounded generation. It is LAVIS's Q-Former with `is_decoder`.
    MultimodalCausal,
}

impl TextMask {
    /// What is added to attention scores: zero where a position may look, very negative where it
    /// may not. Made once for all layers.
    ///
    /// # Shapes
    /// - `attention_mask`: `[batch, tokens]`, zero at padding
    /// - returns: `[batch, 1, 1 or all, all]`, where all = `queries` + tokens
    pub(crate) fn bias(
        self,
        attention_mask: Tensor<2, Int>,
        queries: usize,
        dtype: DType,
    ) -> Tensor<4> {
        let [_, tokens] = attention_mask.dims();
        let device = attention_mask.device();
        let dtype: FloatDType = dtype.into();
        let unseen = unseen_score(dtype);
        // Cast before it is scaled: the device's default float type may be too narrow.
        let bias = |mask: Tensor<2, Bool>| {
            mask.float()
                .cast(dtype)
                .mul_scalar(unseen)
                .pad([(queries, 0)], PadMode::Constant(0.0))
        };
        let padding = bias(attention_mask.equal_scalar(0)).unsqueeze_dims::<4>(&[1, 1]);
        match self {
            Self::Bidirectional => padding,
            Self::MultimodalCausal => {
                // The diagonal of the text starts below the rows of the queries, to whom
                // therefore all text is later.
                let shape = [queries + tokens, tokens];
                let later = Tensor::<2, Bool>::tril_mask(shape, -(queries as i64), &device);
                padding + bias(later).unsqueeze::<4>()
            }
        }
    }
}

/// A score whose exponential is zero beside any other. A quarter of the smallest number, so that it
/// is finite even twice and with a score added: the row of a text that is all padding would
/// otherwise be NaN. That row sees all positions alike, as in transformers, for a score is lost in
/// the rounding of so large a number.
fn unseen_score(dtype: FloatDType) -> f64 {
    dtype.finfo().min / 4.0
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Two queries and three tokens, of which the second text lacks one and the third has none.
    fn attention_mask() -> Tensor<2, Int> {
        Tensor::from_data([[1, 1, 1], [1, 1, 0], [0, 0, 0]], &Device::default())
    }

    fn seen(kind: TextMask, queries: usize) -> Vec<bool> {
        let bias = kind.bias(attention_mask(), queries, DType::F32);
        let all = queries + 3;
        let bias: Vec<f32> = bias.expand([3, 1, all, all]).try_into_vec_as().unwrap();
        bias.iter().map(|&bias| bias == 0.0).collect()
    }

    const Y: bool = true;
    const N: bool = false;

    #[test]
    fn all_see_all_but_padding() {
        let expected = [[Y, Y, Y, Y, Y], [Y, Y, Y, Y, N], [Y, Y, N, N, N]];
        let expected: Vec<bool> = expected.iter().flat_map(|row| row.repeat(5)).collect();
        assert_eq!(seen(TextMask::Bidirectional, 2), expected);
        let expected = [[Y, Y, Y], [Y, Y, N], [N, N, N]];
        let expected: Vec<bool> = expected.iter().flat_map(|row| row.repeat(3)).collect();
        assert_eq!(seen(TextMask::Bidirectional, 0), expected);
    }

    #[test]
    fn queries_see_queries_and_text_sees_them_and_earlier_text() {
        #[rustfmt::skip]
        let expected = [
            Y, Y, N, N, N,  Y, Y, N, N, N,  Y, Y, Y, N, N,  Y, Y, Y, Y, N,  Y, Y, Y, Y, Y,
            Y, Y, N, N, N,  Y, Y, N, N, N,  Y, Y, Y, N, N,  Y, Y, Y, Y, N,  Y, Y, Y, Y, N,
            Y, Y, N, N, N,  Y, Y, N, N, N,  Y, Y, N, N, N,  Y, Y, N, N, N,  Y, Y, N, N, N,
        ];
        assert_eq!(seen(TextMask::MultimodalCausal, 2), expected);
    }

    #[test]
    fn the_bias_is_finite_in_every_float_type_and_leaves_room_for_a_score() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for kind in [TextMask::Bidirectional, TextMask::MultimodalCausal] {
                let bias = kind.bias(attention_mask(), 2, dtype);
                assert_eq!(bias.dtype(), dtype);
                let bias: Vec<f32> = bias.sub_scalar(100.0).try_into_vec_as().unwrap();
                assert!(bias.iter().all(|bias| bias.is_finite()));
            }
        }
    }
}
