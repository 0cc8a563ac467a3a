//! From an attention mask to positions, and to what is added to attention scores.

use burn::tensor::{Bool, DType, FloatDType, Int, Tensor};

use super::config::POSITION_OFFSET;

/// Rows of the position embedding for the last `new` tokens. Padding is not counted and gets row 1.
///
/// # Shapes
/// - `attention_mask`: `[batch, past + new]`
/// - returns: `[batch, new]`
pub(super) fn position_rows(attention_mask: Tensor<2, Int>, new: usize) -> Tensor<2, Int> {
    let [_, total] = attention_mask.dims();
    let counted = attention_mask.clone().cumsum(1) * attention_mask;
    counted
        .narrow(1, total - new, new)
        .add_scalar(POSITION_OFFSET as i64 - 1)
}

/// Zero where a new token may look, very negative where it may not: at later tokens and padding.
///
/// Made once for all layers. It is added rather than filled in, for an addition's backward pass
/// needs no mask.
///
/// # Shapes
/// - `attention_mask`: `[batch, past + new]`
/// - returns: `[batch, 1, new, past + new]`
pub(super) fn attention_bias(
    attention_mask: Tensor<2, Int>,
    new: usize,
    dtype: DType,
) -> Tensor<4> {
    let [_, total] = attention_mask.dims();
    let device = attention_mask.device();
    let dtype_of_scores: FloatDType = dtype.into();
    let hidden = hidden_score(dtype);
    let padding = attention_mask
        .equal_scalar(0)
        .float()
        .mul_scalar(hidden)
        .unsqueeze_dims::<4>(&[1, 1]);
    if new == 1 {
        return padding.cast(dtype_of_scores);
    }
    let later = Tensor::<2, Bool>::tril_mask([new, total], (total - new) as i64, &device)
        .float()
        .mul_scalar(hidden)
        .unsqueeze::<4>();
    (padding + later).cast(dtype_of_scores)
}

/// A score whose exponential is zero. Finite, so that a row that may look nowhere (left padding)
/// stays finite, and twice it still is.
fn hidden_score(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => -2e4,
        _ => -1e30,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn mask() -> Tensor<2, Int> {
        Tensor::from_data([[0, 1, 1, 1], [1, 1, 1, 0]], &Device::flex())
    }

    #[test]
    fn positions_skip_padding_on_both_sides() {
        let rows = |new| -> Vec<i64> { position_rows(mask(), new).try_into_vec_as().unwrap() };
        assert_eq!(rows(4), [1, 2, 3, 4, 2, 3, 4, 1]);
        assert_eq!(rows(1), [4, 1]);
    }

    #[test]
    fn a_token_sees_itself_and_earlier_tokens_that_are_not_padding() {
        let seen = |new| -> Vec<bool> {
            let bias = attention_bias(mask(), new, DType::F32);
            assert_eq!(bias.dims(), [2, 1, new, 4]);
            let bias: Vec<f32> = bias.try_into_vec_as().unwrap();
            bias.iter().map(|&bias| bias == 0.0).collect()
        };
        let (y, n) = (true, false);
        assert_eq!(seen(1), [n, y, y, y, y, y, y, n]);
        assert_eq!(seen(2), [n, y, y, n, n, y, y, y, y, y, y, n, y, y, y, n]);
    }

    #[test]
    fn half_precision_stays_finite() {
        for dtype in [DType::F16, DType::BF16] {
            let bias = attention_bias(mask(), 4, dtype);
            assert_eq!(bias.dtype(), dtype);
            let bias: Vec<f32> = bias.try_into_vec_as().unwrap();
            assert!(bias.iter().all(|bias| bias.is_finite()));
        }
    }
}
