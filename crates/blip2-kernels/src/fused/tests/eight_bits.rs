//! Linear layers with products of eight bits, where the processor has them; elsewhere they are as in bfloat16.

use super::*;

fn multiplied(x: Tensor<2>, weight: Tensor<2>, products: Products) -> Tensor<2> {
    let out = products.during(|| linear(x.unsqueeze(), weight, None, Activation::None));
    out.squeeze_dim(0)
}

/// Shapes with and without whole words and vectors; few rows are not rounded.
const SHAPES: [[usize; 3]; 6] = [
    [70, 33, 49],
    [131, 64, 48],
    [40, 1, 1],
    [64, 200, 150],
    [25, 31, 17],
    [8, 34, 71],
];

/// Whole numbers up to 127 that fill the range are multiples of one, and so exact on every processor.
#[test]
fn multiples_are_multiplied_exactly() {
    for [rows, inputs, outputs] in SHAPES {
        let whole = |shape: [usize; 2]| {
            let within = Distribution::Uniform(-126.0, 126.0);
            Tensor::<2>::random(shape, within, &Device::flex()).round()
        };
        // One number of each row and each column is the largest.
        let x = whole([rows, inputs]).slice_fill([0..rows, 0..1], -127.0);
        let weight = whole([inputs, outputs]).slice_fill([0..1, 0..outputs], 127.0);
        for scale in [1.0, 0.5] {
            let found = multiplied(x.clone() * scale, weight.clone(), Products::INT8);
            let expected = x.clone().matmul(weight.clone()) * scale;
            found.into_data().assert_eq(&expected.into_data(), true);
        }
    }
}

/// The error of a sum is at most what the rounding of each of its terms can make.
#[test]
fn rounding_is_to_the_nearest_multiple() {
    for [rows, inputs, outputs] in SHAPES {
        let [x, weight] = [[rows, inputs], [inputs, outputs]].map(|shape| random(shape).inner());
        for weight in [weight.clone(), weight.cast(FloatDType::BF16)] {
            let wide = weight.clone().cast(FloatDType::F32);
            let x_error = x.clone().abs().max_dim(1) / 254.0;
            let weight_error = wide.clone().abs().max_dim(0) / 254.0;
            let bound = x_error.clone() * wide.clone().abs().sum_dim(0)
                + x.clone().abs().sum_dim(1) * weight_error.clone()
                + x_error * weight_error * inputs as f64;
            let found = multiplied(x.clone(), weight, Products::INT8);
            let error = (found - x.clone().matmul(wide)).abs();
            let beyond = (error - bound * 1.0001).max().into_scalar::<f32>();
            assert!(beyond <= 1e-5, "{beyond} more than rounding");
        }
    }
}

#[test]
fn a_row_of_zeros_is_zero_and_what_is_not_finite_stays_so() {
    let weight = random([50, 30]).inner().slice_fill([0..50, 4..5], 0.0);
    let x = random([40, 50]).inner();
    let x = x.slice_fill([3..4, 0..50], 0.0);
    let x = x.slice_fill([5..6, 7..8], f32::NAN);
    let x = x.slice_fill([6..7, 49..50], f32::INFINITY);
    let out = multiplied(x, weight, Products::INT8);
    let out: Vec<f32> = out.into_data().iter().collect();
    for (row, out) in out.chunks_exact(30).enumerate() {
        for (column, &number) in out.iter().enumerate() {
            let right = match (row, column) {
                (5 | 6, _) => !number.is_finite(),
                (3, _) | (_, 4) => number == 0.0,
                _ => number.is_finite(),
            };
            assert!(right, "{row}, {column}: {number}");
        }
    }
}

/// The gradient is that of the weight as it is, in bfloat16.
#[test]
fn gradients_pass_as_in_bfloat16() {
    let [x, weight] = [[40, 50], [50, 30]].map(|shape| random(shape).inner());
    let slope = random([40, 30]).inner();
    let gradient = |products: Products| {
        let x = Tensor::from_inner(x.clone()).require_grad();
        let out = multiplied(x.clone(), weight.clone(), products);
        let grads = (out * Tensor::from_inner(slope.clone())).sum().backward();
        x.grad(&grads).expect("a gradient").into_data()
    };
    gradient(Products::INT8).assert_eq(&gradient(Products::BF16), true);
}
