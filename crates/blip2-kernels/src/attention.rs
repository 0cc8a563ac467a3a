//! Multi-head attention with an additive bias and dropout.

use burn::nn::Dropout;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, FloatDType, Tensor};

use crate::dropout::drops;

/// Attention of `query` to `key` and `value`: `softmax(query · keyᵀ / √head_dim + bias) · value` in each
/// of `heads` parts of the channels.
///
/// # Shapes
/// - `query`: `[batch, queries, width]`
/// - `key`, `value`: `[batch, keys, width]`
/// - `bias`: `[1 or batch, 1 or heads, 1 or queries, keys]`; gets no gradient
/// - returns: `[batch, queries, width]`
pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    bias: Option<&Tensor<4>>,
    heads: usize,
    dropout: Option<&Dropout>,
) -> Tensor<3> {
    let device = query.device();
    let dropout = dropout.filter(|dropout| drops(dropout, &device));
    #[cfg(feature = "flex")]
    if crate::fused::takes(&query) {
        let seed = dropout.map(|dropout| crate::DropoutSeed::draw(dropout, &device));
        return crate::fused::attention(query, key, value, bias, heads, seed);
    }
    let [batch, queries, width] = query.dims();
    let head_dim = width / heads;
    let split = |x: Tensor<3>| {
        let [_, tokens, _] = x.dims();
        x.reshape([batch, tokens, heads, head_dim]).swap_dims(1, 2)
    };
    // Scaled before the product, as the reference does: it matters in half precision.
    let query = split(query.mul_scalar((head_dim as f64).powf(-0.5)));
    let mut scores = query.matmul(split(key).transpose());
    if let Some(bias) = bias {
        scores = scores + bias.clone();
    }
    let mut weights = softmax_in_f32(scores);
    if let Some(dropout) = dropout {
        weights = dropout.forward(weights);
    }
    let attended = weights.matmul(split(value));
    attended.swap_dims(1, 2).reshape([batch, queries, width])
}

/// Softmax over the last dimension; half precision is widened for the sum.
fn softmax_in_f32(scores: Tensor<4>) -> Tensor<4> {
    match scores.dtype() {
        dtype @ (DType::F16 | DType::BF16) => {
            let narrow: FloatDType = dtype.into();
            softmax(scores.cast(FloatDType::F32), 3).cast(narrow)
        }
        _ => softmax(scores, 3),
    }
}
