//! Seconds and memory of training steps through layers with LoRA adapters, as wide as OPT-2.7b's:
//! `cargo run --release -p blip2-kernels --example lora_cost composed|beside f32|bf16|int8`.
//!
//! `composed` multiplies with Burn's `base + scale · a · b`, `beside` is `blip2_kernels::linear`. Memory is
//! the peak of the process over what the weights take, in MiB; some 30 are left over from making them.

use std::time::Instant;

use blip2_kernels::{Activation, linear};
use burn::module::{Lora, Module, ModuleMapper, Param, ParamGroup};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{Device, Distribution, FloatDType, Tensor, module};

const WIDTH: usize = 2560;
const LAYERS: usize = 8;
const RANK: usize = 8;
const TOKENS: usize = 256;
const STEPS: usize = 5;

struct ToAutodiff;

impl ModuleMapper for ToAutodiff {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match param.lazy_shape().to_vec().contains(&RANK) {
            true => param.map(|factor| factor.autodiff().require_grad()),
            false => param,
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (composed, base) = match words.as_slice() {
        ["composed", base] => (true, *base),
        ["beside", base] => (false, *base),
        _ => panic!("say `composed` or `beside`, and f32, bf16 or int8"),
    };
    let device = Device::flex();
    let layers: Vec<Linear> = (0..LAYERS).map(|_| layer(base, &device)).collect();
    let bytes: usize = layers
        .iter()
        .map(|layer| layer.weight.base().into_data().as_bytes().len())
        .sum();
    let mebibytes = bytes >> 20;
    let mut seconds = Vec::new();
    for _ in 0..=STEPS {
        let started = Instant::now();
        let x = Tensor::<3>::random([1, TOKENS, WIDTH], Distribution::Default, &device);
        let x = x.autodiff().require_grad();
        let out = layers.iter().fold(x, |x, layer| match composed {
            true => module::linear(x, layer.weight.val(), None),
            false => linear(x, layer, Activation::None),
        });
        let grads = out.sum().backward();
        for layer in &layers {
            let adapter = layer.weight.adapter().expect("an adapter");
            assert!(adapter.a.val().grad(&grads).is_some());
        }
        seconds.push(started.elapsed().as_secs_f64());
    }
    // The first is a rehearsal.
    let mut seconds = seconds.split_off(1);
    seconds.sort_by(f64::total_cmp);
    println!(
        "{} {base}: {:.3} s a step, weights {mebibytes} MiB, peak above them {} MiB",
        words[0],
        seconds[STEPS / 2],
        peak().saturating_sub(mebibytes)
    );
}

fn layer(base: &str, device: &Device) -> Linear {
    let mut linear = LinearConfig::new(WIDTH, WIDTH)
        .with_bias(false)
        .init(device);
    linear.weight = linear.weight.map(|weight| match base {
        "f32" => weight,
        "bf16" => weight.cast(FloatDType::BF16),
        "int8" => {
            let scheme = QuantScheme::default()
                .with_value(QuantValue::Q8S)
                .with_store(QuantStore::Native)
                .per_block([64], ScaleDtype::F32);
            weight.quantize_dynamic(&scheme)
        }
        other => panic!("{other} is none of f32, bf16 and int8"),
    });
    let lora = Lora::new(RANK, 16.0)
        .set_dtype(FloatDType::F32)
        .set_param_group(ParamGroup::from_path("weight"));
    linear.apply_lora(lora).map(&mut ToAutodiff)
}

/// The most memory that this process has held so far, in MiB; 0 where the system does not say.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|text| text.strip_prefix("VmHWM:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    number.unwrap_or(0) / 1024
}
