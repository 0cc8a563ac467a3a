//! Products in bfloat16. Numbers that it holds are multiplied as in f32, on any processor.

use super::*;
use crate::{attention, tied_logits};

fn rounded<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.inner().cast(FloatDType::BF16).cast(FloatDType::F32)
}

/// Numbers that bfloat16 holds.
fn holdable<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    rounded(random(shape))
}

fn leaf<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x.clone()).require_grad()
}

/// Shapes with and without whole vectors, of few rows and many.
const SHAPES: [[usize; 3]; 7] = [
    [70, 33, 49],
    [131, 64, 48],
    [40, 1, 1],
    [64, 200, 150],
    [25, 31, 17],
    [5, 34, 71],
    [11, 7, 600],
];

#[test]
fn linear_layers_and_their_gradients() {
    for [rows, inputs, outputs] in SHAPES {
        let [x, weight] = [[rows, inputs], [inputs, outputs]].map(holdable);
        let slope = holdable([rows, outputs]);
        let run = |weight: Tensor<2>| {
            let x = leaf(&x);
            let out = Products::BF16.during(|| {
                linear(
                    x.clone().unsqueeze(),
                    weight.clone(),
                    None,
                    Activation::None,
                )
            });
            let out = out.squeeze_dim::<2>(0);
            let value = out.clone().inner().into_data();
            let grads = (out * Tensor::from_inner(slope.clone())).sum().backward();
            let grads = [x.grad(&grads), weight.grad(&grads)];
            (value, grads.map(|grad| grad.map(Tensor::into_data)))
        };
        let value = x.clone().matmul(weight.clone()).into_data();
        let x_grad = slope.clone().matmul(weight.clone().transpose()).into_data();
        let weight_grad = x.clone().transpose().matmul(slope.clone()).into_data();
        let (found, [found_x, found_weight]) = run(leaf(&weight));
        assert_close(found, value.clone(), "value");
        assert_close(found_x.expect("a gradient"), x_grad.clone(), "x");
        assert_close(found_weight.expect("a gradient"), weight_grad, "weight");
        // Frozen, and kept in half precision.
        let (found, [found_x, _]) = run(weight.cast(FloatDType::BF16));
        assert_close(found, value, "value, narrow");
        assert_close(found_x.expect("a gradient"), x_grad, "x, narrow");
    }
    assert_eq!(Products::current(), Products::F32);
}

#[test]
fn logits_and_their_gradients() {
    for [rows, width, vocabulary] in SHAPES {
        let [x, embedding] = [[rows, width], [vocabulary, width]].map(holdable);
        let slope = holdable([rows, vocabulary]);
        let value = x.clone().matmul(embedding.clone().transpose()).into_data();
        let x_grad = slope.clone().matmul(embedding.clone()).into_data();
        let narrow = embedding.clone().cast(FloatDType::BF16);
        for embedding in [embedding, narrow] {
            let x = leaf(&x);
            let out = Products::BF16.during(|| tied_logits(x.clone(), embedding));
            assert_close(out.clone().inner().into_data(), value.clone(), "value");
            let grads = (out * Tensor::from_inner(slope.clone())).sum().backward();
            let found = x.grad(&grads).expect("a gradient").into_data();
            assert_close(found, x_grad.clone(), "gradient");
        }
    }
}

/// Other numbers are rounded to the nearest, of equals to the even one, where the processor multiplies
/// bfloat16; and are left as they are where not.
#[test]
fn both_sides_are_rounded_or_none() {
    let exact = |numbers: Tensor<2>| -> Vec<f32> { numbers.into_data().iter().collect() };
    let ones = Tensor::<2>::eye(70, &Device::flex());
    let halves: Vec<f32> = (0..70 * 70)
        .map(|index| f32::from_bits(0x3f80_8000 + 0x4000 * index))
        .collect();
    let halves = Tensor::from_data(TensorData::new(halves, [70, 70]), &Device::flex());
    for numbers in [random([70, 70]).inner(), halves] {
        let found = Products::BF16.during(|| {
            [
                tied_logits(numbers.clone(), ones.clone()),
                tied_logits(ones.clone(), numbers.clone()).transpose(),
                linear(
                    ones.clone().unsqueeze(),
                    numbers.clone(),
                    None,
                    Activation::None,
                )
                .squeeze_dim(0),
            ]
        });
        let (plain, rounded) = (exact(numbers.clone()), exact(rounded(numbers)));
        for found in found.map(exact) {
            assert!(found == plain || found == rounded);
        }
    }
}

#[test]
fn attention_is_near_to_that_in_f32() {
    for [queries, keys] in [[70, 33], [5, 197], [130, 48]] {
        let [query, key, value] = [queries, keys, keys].map(|tokens| holdable([2, tokens, 40]));
        let slope = holdable([2, queries, 40]);
        let run = |products: Products| {
            let leaves = [&query, &key, &value].map(leaf);
            let [query, key, value] = leaves.clone();
            let out = products.during(|| attention(query, key, value, None, 2, None));
            let found = out.clone().inner();
            let grads = (out * Tensor::from_inner(slope.clone())).sum().backward();
            let [query, key, value] = leaves.map(|leaf| leaf.grad(&grads).expect("a gradient"));
            [found, query, key, value]
        };
        for (found, expected) in run(Products::BF16).into_iter().zip(run(Products::F32)) {
            let scale = expected.clone().abs().max().into_scalar::<f32>();
            let error = (found - expected).abs().max().into_scalar::<f32>();
            // Weights and their slopes are rounded to eight bits.
            assert!(error <= scale / 128.0, "{error} of {scale}");
        }
    }
}
