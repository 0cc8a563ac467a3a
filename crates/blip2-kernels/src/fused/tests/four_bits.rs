//! Linear layers whose weights are kept in four bits.

use crate::{Bits, Dequantized, LinearsTo, dequantized};

use super::*;

fn layer(inputs: usize, outputs: usize) -> Linear {
    let layer = Linear {
        weight: Param::from_tensor(random([inputs, outputs]).inner()),
        bias: Some(Param::from_tensor(random([outputs]).inner())),
    };
    layer.map(&mut LinearsTo::new(Bits::Four))
}

#[test]
fn four_bits_multiply_as_what_they_stand_for_and_pass_gradients() {
    for (inputs, outputs) in [(48, 64), (300, 72)] {
        let packed = layer(inputs, outputs);
        let weight = packed.weight.base();
        assert!(matches!(weight.dtype(), DType::QFloat(_)));
        let wide = packed.clone().map(&mut Dequantized);
        assert_eq!(wide.weight.base().dtype(), DType::F32);
        // Few rows, and more than those.
        for tokens in [1, 3, 40] {
            for activation in [Activation::None, Activation::Gelu] {
                compare(
                    [random([1, tokens, inputs])],
                    |[x]| crate::linear(x, &packed, activation),
                    |[x]| crate::linear(x, &wide, activation),
                );
            }
        }
        // Half precision takes Burn's way.
        let x = random([1, 2, inputs]).inner().cast(FloatDType::BF16);
        let found = crate::linear(x.clone(), &packed, Activation::None);
        let expected = crate::linear(x, &wide, Activation::None);
        assert_close(found.into_data(), expected.into_data(), "bf16");
    }
}

#[test]
fn four_bits_are_rounded_once_and_adapters_learn_beside_them() {
    let lora = Lora::new(2, 4.0).set_param_group(ParamGroup::from_path("weight"));
    let packed = layer(48, 64);
    let again = packed.clone().map(&mut LinearsTo::new(Bits::Four));
    let again = again.weight.base();
    let base = packed.weight.base();
    dequantized(again)
        .into_data()
        .assert_eq(&dequantized(base.clone()).into_data(), true);
    let adapted = packed.apply_lora(lora);
    assert!(adapted.weight.adapter().is_some());
    let x = random([1, 40, 48]).inner();
    let found = crate::linear(x.clone(), &adapted, Activation::None);
    let bias = adapted.bias.as_ref().map(|bias| bias.val());
    // Its second factor starts at zero.
    let expected = module::linear(x, dequantized(base), bias);
    assert_close(found.into_data(), expected.into_data(), "adapted");
    let merged = adapted.map(&mut Dequantized).materialize();
    assert_eq!(merged.weight.base().dtype(), DType::F32);
}
