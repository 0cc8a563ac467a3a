//! Every operation against the same from Burn's own, in value and gradient.

use burn::module::{Lora, Module, ModuleMapper, Param, ParamGroup};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::quantization::{QuantScheme, QuantStore, ScaleDtype};
use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor, TensorData, module};
use proptest::prelude::*;

use super::*;

mod eight_bits;
mod four_bits;
mod products;

/// Relative to the largest number of a result, or to 1: sums of at most 300 f32 terms near 1 in another order.
const TOLERANCE: f32 = 1e-5;

fn device() -> Device {
    Device::flex().autodiff()
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device())
}

fn assert_close(found: TensorData, expected: TensorData, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let expected: Vec<f32> = expected.iter::<f32>().collect();
    let scale = expected.iter().fold(1.0f32, |scale, x| scale.max(x.abs()));
    for (index, (found, expected)) in found.iter::<f32>().zip(expected).enumerate() {
        let error = (found - expected).abs() / scale;
        assert!(error <= TOLERANCE, "{what} at {index}: {found}, {expected}");
    }
}

/// Compares the values of two functions of `inputs`, and the gradients for all of them.
fn compare<const D: usize, const N: usize>(
    inputs: [Tensor<D>; N],
    found: impl Fn([Tensor<D>; N]) -> Tensor<D>,
    expected: impl Fn([Tensor<D>; N]) -> Tensor<D>,
) {
    // Drawn, not a wave: sums over a wave can be far smaller than what they add up, and lose its digits.
    let shape = found(inputs.clone()).shape();
    let slope = random([shape.num_elements()]);
    let run = |function: &dyn Fn([Tensor<D>; N]) -> Tensor<D>| {
        let leaves = inputs.clone().map(|x| x.detach().require_grad());
        let out = function(leaves.clone());
        let value = out.clone().into_data();
        let slope = slope.clone().reshape(out.dims());
        let grads = (out * slope).sum().backward();
        let grads = leaves.map(|leaf| leaf.grad(&grads).map(Tensor::into_data));
        (value, grads)
    };
    let (found, found_grads) = run(&found);
    let (expected, expected_grads) = run(&expected);
    assert_close(found, expected, "value");
    for (index, (found, expected)) in found_grads.into_iter().zip(expected_grads).enumerate() {
        let what = format!("gradient {index}");
        match (found, expected) {
            (Some(found), Some(expected)) => assert_close(found, expected, &what),
            (found, expected) => assert_eq!(found.is_some(), expected.is_some(), "{what}"),
        }
    }
}

/// Attention as a chain of Burn's operations; `kept` multiplies the weights.
fn plain_attention(
    [query, key, value]: [Tensor<3>; 3],
    bias: Option<Tensor<4>>,
    heads: usize,
    kept: Option<Tensor<4>>,
) -> Tensor<3> {
    let [batch, queries, width] = query.dims();
    let split = |x: Tensor<3>| {
        let [_, tokens, _] = x.dims();
        x.reshape([batch, tokens, heads, width / heads])
            .swap_dims(1, 2)
    };
    let scale = ((width / heads) as f64).sqrt();
    let mut scores = split(query)
        .matmul(split(key).transpose())
        .div_scalar(scale);
    if let Some(bias) = bias {
        scores = scores + bias;
    }
    let mut weights = softmax(scores, 3);
    if let Some(kept) = kept {
        weights = weights * kept;
    }
    let attended = weights.matmul(split(value));
    attended.swap_dims(1, 2).reshape([batch, queries, width])
}

fn half() -> Dropout {
    DropoutConfig::new(0.5).init()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn attention_is_burns(
        batch in 1usize..4, queries in 1usize..150, keys in 1usize..40, heads in 1usize..4,
        head_dim in 1usize..20, broadcast in 0usize..16,
    ) {
        let width = heads * head_dim;
        let inputs = [
            random([batch, queries, width]),
            random([batch, keys, width]),
            random([batch, keys, width]),
        ];
        // 15 has no bias; else each bit is a dimension that is broadcast.
        let bias = (broadcast < 15).then(|| {
            let dim = |bit: usize, len| if broadcast >> bit & 1 == 1 { 1 } else { len };
            random([dim(0, batch), dim(1, heads), dim(2, queries), keys]).inner()
        });
        let autodiff = bias.clone().map(Tensor::from_inner);
        compare(
            inputs,
            |[q, k, v]| attention(q, k, v, bias.as_ref(), heads, None),
            |inputs| plain_attention(inputs, autodiff.clone(), heads, None),
        );
    }

    #[test]
    fn linear_layers_are_burns(
        rows in 1usize..200, inputs in 1usize..70, outputs in 1usize..70, kind in 0usize..4,
    ) {
        let kind = [Activation::None, Activation::Gelu, Activation::QuickGelu, Activation::Relu][kind];
        let x = random([1, rows, inputs]);
        let weight = random([1, inputs, outputs]);
        let bias = random([1, 1, outputs]);
        compare(
            [x, weight, bias],
            |[x, w, b]| linear(x, w.squeeze_dim(0), Some(b.reshape([outputs])), kind),
            |[x, w, b]| {
                let out = module::linear(x, w.squeeze_dim(0), Some(b.reshape([outputs])));
                kind.forward(out)
            },
        );
    }

    #[test]
    fn logits_are_burns(rows in 1usize..50, width in 1usize..40, vocabulary in 1usize..90) {
        compare(
            [random([rows, width]), random([vocabulary, width])],
            |[x, embedding]| logits(x, embedding),
            |[x, embedding]| x.matmul(embedding.transpose()),
        );
    }

    #[test]
    // Rows of a few numbers, which can be nearly equal, amplify rounding.
    fn layer_norms_are_burns(rows in 1usize..300, width in 10usize..100) {
        let flat = |x: Tensor<3>| x.reshape([width]);
        compare(
            [random([2, rows, width]), random([1, 1, width]), random([1, 1, width])],
            |[x, gamma, beta]| layer_norm(x, flat(gamma), flat(beta), 1e-5),
            |[x, gamma, beta]| {
                let (variance, mean) = x.clone().var_mean_bias(2);
                (x - mean) / (variance + 1e-5).sqrt() * gamma + beta
            },
        );
    }
}

/// Parts of one projection are read where they lie, and pass their gradients to it.
#[test]
fn attention_reads_parts_of_a_projection() {
    let part = |x: &Tensor<3>, index: usize| x.clone().narrow(2, 12 * index, 12);
    compare(
        [random([2, 70, 36])],
        |[x]| attention(part(&x, 0), part(&x, 1), part(&x, 2), None, 3, None),
        |[x]| plain_attention([part(&x, 0), part(&x, 1), part(&x, 2)], None, 3, None),
    );
}

/// What a query may not look at has no weight at all, and a query that may look nowhere stays finite.
#[test]
fn hidden_keys_do_not_count() {
    let (query, key, value) = (random([1, 2, 4]), random([1, 3, 4]), random([1, 3, 4]));
    let bias = Tensor::<4>::from_data(
        [[[[0.0, 0.0, -1e30], [-1e30, -1e30, -1e30]]]],
        &Device::flex(),
    );
    let attend = |value: Tensor<3>| {
        let out = attention(query.clone(), key.clone(), value, Some(&bias), 2, None);
        out.into_data().iter::<f32>().collect::<Vec<_>>()
    };
    let out = attend(value.clone());
    assert!(out.iter().all(|x| x.is_finite()));
    let other = value.slice_assign([0..1, 2..3, 0..4], random([1, 1, 4]).mul_scalar(1e6));
    assert_eq!(out[..4], attend(other)[..4]);
}

/// The mask of a seed is found by attention that looks everywhere alike; then it is used.
#[test]
fn attention_weights_are_dropped_in_the_gradient_too() {
    let (batch, queries, keys, heads) = (2, 70, 24, 2);
    let seed = DropoutSeed::draw(&half(), &device());
    let zeros = |tokens| Tensor::<3>::zeros([batch, tokens, heads * keys], &device());
    let eye = Tensor::<2>::eye(keys, &device()).unsqueeze::<3>();
    let eyes = eye.repeat(&[batch, 1, heads]);
    let kept = attention(zeros(queries), zeros(keys), eyes, None, heads, Some(seed));
    let kept = kept.mul_scalar(keys as f64);
    let kept = kept.reshape([batch, queries, heads, keys]).swap_dims(1, 2);
    let counted: f32 = kept
        .clone()
        .into_data()
        .iter::<f32>()
        .filter(|&k| k > 0.0)
        .count() as f32;
    let share = counted / (batch * heads * queries * keys) as f32;
    // 6,720 draws: the deviation of their share is 0.006.
    assert!((share - 0.5).abs() < 0.03, "{share}");
    let inputs = [
        random([batch, queries, 12]),
        random([batch, keys, 12]),
        random([batch, keys, 12]),
    ];
    compare(
        inputs,
        |[q, k, v]| attention(q, k, v, None, heads, Some(seed)),
        |inputs| plain_attention(inputs, None, heads, Some(kept.clone())),
    );
}

#[test]
fn dropout_has_the_same_mask_in_the_gradient() {
    let seed = DropoutSeed::draw(&half(), &device());
    let kept = dropout(Tensor::<2>::ones([300, 70], &device()), seed);
    let mean: f32 = kept.clone().mean().into_scalar();
    // 21,000 draws: the deviation of their mean is 0.007.
    assert!((mean - 1.0).abs() < 0.035, "{mean}");
    compare(
        [random([300, 70])],
        |[x]| dropout(x, seed),
        |[x]| x * kept.clone(),
    );
    let other = DropoutSeed::draw(&half(), &device());
    let both = kept * dropout(Tensor::<2>::ones([300, 70], &device()), other);
    // Independent masks: each number stays with a probability of a quarter, and is 4.
    let mean: f32 = both.mean().into_scalar();
    assert!((mean - 1.0).abs() < 0.06, "{mean}");
}

/// Weights in half precision give what their widened numbers give, for few rows and for many: several
/// blocks, forward and back.
#[test]
fn weights_in_half_precision_are_widened() {
    let precisions = [FloatDType::F16, FloatDType::BF16];
    for (dtype, rows) in precisions
        .into_iter()
        .flat_map(|dtype| [(dtype, 9), (dtype, 40)])
    {
        let narrow = random([700, 500]).mul_scalar(0.05).inner().cast(dtype);
        let wide = Tensor::from_inner(narrow.clone().cast(FloatDType::F32));
        let bias = random([500]);
        compare(
            [random([1, rows, 700])],
            |[x]| linear(x, narrow.clone(), Some(bias.clone()), Activation::Gelu),
            |[x]| linear(x, wide.clone(), Some(bias.clone()), Activation::Gelu),
        );
        compare(
            [random([rows, 500])],
            |[x]| logits(x, narrow.clone()),
            |[x]| logits(x, wide.clone()),
        );
    }
}

/// A row gives the same bits alone and among others, so a batch captions as its images do alone.
#[test]
fn few_rows_do_not_depend_on_each_other() {
    let x = random([1, 11, 300]).inner();
    let weight = random([300, 70]).inner();
    let bits = |x: Tensor<3>| -> Vec<u32> {
        let [_, rows, width] = x.dims();
        let out = linear(x.clone(), weight.clone(), None, Activation::None);
        let logits = logits(x.reshape([rows, width]), weight.clone().transpose());
        let numbers = [out.into_data(), logits.into_data()];
        let numbers = numbers.iter().flat_map(|data| data.iter::<f32>());
        numbers.map(f32::to_bits).collect()
    };
    let all = bits(x.clone());
    for row in 0..11 {
        let alone = bits(x.clone().narrow(1, row, 1));
        assert_eq!(alone[..70], all[70 * row..70 * (row + 1)], "{row}");
        assert_eq!(alone[70..], all[70 * (11 + row)..70 * (12 + row)], "{row}");
    }
}

#[test]
fn what_they_do_not_take_goes_another_way() {
    let x = Tensor::<2>::ones([2, 2], &Device::flex());
    assert!(takes(&x) && takes_weight(&x));
    let half = x.clone().cast(FloatDType::BF16);
    assert_eq!(half.dtype(), DType::BF16);
    assert!(!takes(&half) && takes_weight(&half));
    assert!(!takes_weight(&Tensor::from_inner(half).require_grad()));
    assert!(!takes_weight(&x.cast(FloatDType::F64)));
}

#[test]
fn squares_are_summed() {
    let x = random([300, 201]).inner();
    let expected: f32 = x.clone().square().sum().into_scalar();
    let found: f32 = squared_sum(x).into_scalar();
    assert!(
        (found - expected).abs() < TOLERANCE * expected,
        "{found} {expected}"
    );
}

/// A layer with an adapter, whose base is made of `base`.
fn adapted(base: impl Fn(Tensor<2>) -> Tensor<2>) -> Linear {
    let mut linear = LinearConfig::new(48, 36).init(&Device::flex());
    linear.weight = linear.weight.map(base);
    let lora = Lora::new(3, 6.0)
        .set_dtype(FloatDType::F32)
        .set_param_group(ParamGroup::from_path("weight"));
    let linear = linear.apply_lora(lora);
    linear.map(&mut ToAutodiff)
}

/// Draws adapters anew, for `b` is zero at first, and puts them where they learn.
struct ToAutodiff;

impl ModuleMapper for ToAutodiff {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match param.lazy_shape().to_vec().as_slice() {
            [48, 3] | [3, 36] => param.map(|factor| {
                Tensor::random(factor.dims(), Distribution::Normal(0.0, 0.3), &device())
                    .require_grad()
            }),
            _ => param,
        }
    }
}

#[test]
fn an_adapter_beside_the_weight_matches_burns_composed_weight() {
    let eight_bits = QuantScheme::default()
        .with_value(QuantValue::Q8S)
        .with_store(QuantStore::Native)
        .per_block([18], ScaleDtype::F32);
    type Base<'a> = &'a dyn Fn(Tensor<2>) -> Tensor<2>;
    let bases: [(&str, Base); 4] = [
        ("f32", &|weight| weight),
        ("f16", &|weight| weight.cast(FloatDType::F16)),
        ("bf16", &|weight| weight.cast(FloatDType::BF16)),
        ("int8", &|weight| weight.quantize_dynamic(&eight_bits)),
    ];
    for (name, base) in bases {
        let layer = adapted(base);
        let adapter = layer.weight.adapter().expect("an adapter");
        // 3 rows take the way of few rows.
        for tokens in [3, 40] {
            let x = random([1, tokens, 48]);
            for activation in [Activation::None, Activation::Relu] {
                let run = |function: &dyn Fn(Tensor<3>) -> Tensor<3>| {
                    let x = x.clone().detach().require_grad();
                    let out = function(x.clone());
                    let value = out.clone().into_data();
                    let grads = (out.clone() * out.detach().cos()).sum().backward();
                    let grad_of_x = x.grad(&grads).unwrap().into_data();
                    let factors = [&adapter.a, &adapter.b];
                    let of_factors =
                        factors.map(|factor| factor.val().grad(&grads).unwrap().into_data());
                    assert!(layer.weight.base().grad(&grads).is_none());
                    (value, grad_of_x, of_factors)
                };
                let found = run(&|x| crate::linear(x, &layer, activation));
                let bias = layer.bias.as_ref().map(|bias| bias.val());
                let expected = run(&|x| {
                    let out = module::linear(x, layer.weight.val(), bias.clone());
                    activation.forward(out)
                });
                assert_close(found.0, expected.0, &format!("{name}: value"));
                assert_close(found.1, expected.1, &format!("{name}: gradient of x"));
                let [a, b] = found.2;
                let [expected_a, expected_b] = expected.2;
                assert_close(a, expected_a, &format!("{name}: gradient of a"));
                assert_close(b, expected_b, &format!("{name}: gradient of b"));
            }
        }
    }
}
