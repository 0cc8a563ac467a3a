//! Products with weights in any precision.

use burn::module::LoraAdapter;
use burn::nn::Linear;
use burn::tensor::{Tensor, module};

use crate::{Activation, Products, dequantized};

/// Numbers of a matrix that are widened at once: 4 MiB in f32.
const BLOCK: usize = 1 << 20;

/// `activation(x · weight + bias)` in the precision of `x`, whatever that of the weights:
/// `[batch, tokens, inputs]` to `[batch, tokens, outputs]`.
///
/// A LoRA adapter on the weight is a way of its own beside it, see `adapted`.
pub fn linear(x: Tensor<3>, linear: &Linear, activation: Activation) -> Tensor<3> {
    let bias = linear.bias.as_ref().map(|bias| bias.val());
    let weight = linear.weight.base();
    match linear.weight.adapter() {
        Some(adapter) => activation.forward(adapted(x, weight, bias, adapter)),
        None => affine(x, weight, bias, activation),
    }
}

/// `x · weight + bias + (scale · x · a) · b`.
///
/// `Param::val` would give `weight + scale · a · b` instead: a dense matrix a step, in f32 whatever the
/// weight is kept in, and a dense gradient that autodiff then takes apart. Of two thin products nothing
/// dense is made, and the weight stays a constant.
fn adapted(
    x: Tensor<3>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    adapter: &LoraAdapter,
) -> Tensor<3> {
    // What learns multiplies in the precision of `x`.
    let delta = Products::F32.during(|| {
        let down = affine(x.clone(), adapter.a.val(), None, Activation::None);
        let down = down.mul_scalar(adapter.scale);
        affine(down, adapter.b.val(), None, Activation::None)
    });
    affine(x, weight, bias, Activation::None) + delta
}

/// As [`linear`], of its parts.
pub(crate) fn affine(
    x: Tensor<3>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    activation: Activation,
) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if crate::fused::takes(&x)
        && (crate::fused::takes_weight(&weight) || crate::fused::takes_quantized(&weight))
    {
        return crate::fused::linear(x, weight, bias, activation);
    }
    activation.forward(product(x, dequantized(weight), bias))
}

/// Of weights in another precision, blocks of rows are widened one after the other and their
/// products added up: a widened matrix would go through main memory twice.
fn product(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let dtype = x.dtype();
    let [inputs, outputs] = weight.dims();
    let bias = bias.map(|bias| bias.cast(dtype));
    if weight.dtype() == dtype || inputs * outputs <= BLOCK {
        return module::linear(x, weight.cast(dtype), bias);
    }
    let [batch, tokens, _] = x.dims();
    // One product of two dimensions: a batched one would broadcast the weight.
    let x = x.reshape([batch * tokens, inputs]);
    let product = blocks(inputs, outputs)
        .map(|rows| {
            let x = x.clone().slice([0..batch * tokens, rows.clone()]);
            x.matmul(weight.clone().slice([rows, 0..outputs]).cast(dtype))
        })
        .chain(bias.map(Tensor::unsqueeze))
        .reduce(|sum, part| sum + part);
    // A matrix of more than a block has one.
    let product = product.unwrap_or_else(|| Tensor::zeros([batch * tokens, outputs], &x.device()));
    product.reshape([batch, tokens, outputs])
}

/// `x · embeddingᵀ` in the precision of `x`: `[rows, width]` and `[vocabulary, width]` give
/// `[rows, vocabulary]`.
pub fn tied_logits(x: Tensor<2>, embedding: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::fused::takes(&x) && crate::fused::takes_weight(&embedding) {
        return crate::fused::logits(x, embedding);
    }
    blocked_logits(x, embedding)
}

/// Of an embedding in another precision, blocks of tokens are widened one after the other.
fn blocked_logits(x: Tensor<2>, embedding: Tensor<2>) -> Tensor<2> {
    let dtype = x.dtype();
    let [vocabulary, width] = embedding.dims();
    if embedding.dtype() == dtype || vocabulary * width <= BLOCK {
        return x.matmul(embedding.cast(dtype).transpose());
    }
    let logits = blocks(vocabulary, width)
        .map(|tokens| {
            let block = embedding.clone().slice([tokens, 0..width]).cast(dtype);
            x.clone().matmul(block.transpose())
        })
        .collect();
    Tensor::cat(logits, 1)
}

/// The rows of a matrix in blocks of at most [`BLOCK`] numbers.
fn blocks(rows: usize, columns: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let step = (BLOCK / columns.max(1)).max(1);
    (0..rows)
        .step_by(step)
        .map(move |start| start..(start + step).min(rows))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Distribution, FloatDType, Tolerance};

    use super::*;

    /// Three blocks, the last one shorter.
    const SHAPE: [usize; 2] = [2500, 1000];

    fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
    }

    #[test]
    fn blocks_give_what_the_whole_matrix_gives() {
        let device = Device::default();
        let x = random([2, 3, SHAPE[0]], &device);
        let weight = random(SHAPE, &device).cast(FloatDType::BF16);
        let bias = random([SHAPE[1]], &device).cast(FloatDType::BF16);
        let widened = weight.clone().cast(FloatDType::F32);
        for bias in [None, Some(bias)] {
            let whole = module::linear(
                x.clone(),
                widened.clone(),
                bias.clone().map(|bias| bias.cast(FloatDType::F32)),
            );
            let product = product(x.clone(), weight.clone(), bias);
            assert_eq!(product.dtype(), DType::F32);
            // Sums of 2,500 terms in another order; their scale is 50.
            product
                .into_data()
                .assert_approx_eq::<f32>(&whole.into_data(), Tolerance::absolute(2e-4));
        }
        let x = random([4, SHAPE[1]], &device);
        let logits = blocked_logits(x.clone(), weight);
        logits.into_data().assert_approx_eq::<f32>(
            &x.matmul(widened.transpose()).into_data(),
            Tolerance::absolute(2e-4),
        );
    }

    #[test]
    fn gradients_pass_through_blocks() {
        let device = Device::default().autodiff();
        let x = random([1, 2, SHAPE[0]], &device);
        let weight = random(SHAPE, &device).cast(FloatDType::BF16);
        let gradient = |product: fn(Tensor<3>, Tensor<2>) -> Tensor<3>| {
            let x = x.clone().require_grad();
            let gradients = product(x.clone(), weight.clone())
                .powi_scalar(2)
                .sum()
                .backward();
            x.grad(&gradients).unwrap().into_data()
        };
        let blocked = gradient(|x, weight| super::product(x, weight, None));
        let whole = gradient(|x, weight| module::linear(x, weight.cast(FloatDType::F32), None));
        // Their scale is 3,000.
        blocked.assert_approx_eq::<f32>(&whole, Tolerance::absolute(2e-2));
    }
}
