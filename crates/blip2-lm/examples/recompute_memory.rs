//! Peak memory and time of a training step through a frozen decoder:
//! `recompute_memory whole|recomputed f32|bf16`. OPT-125m's layers, batch 16, 64 tokens.
//!
//! The peak is that of the process (Linux), so each way has a process of its own.

use blip2_kernels::MatricesTo;
use blip2_lm::{CausalLm, OptConfig};
use burn::module::Module;
use burn::tensor::{Device, Distribution, FloatDType, Int, Tensor};

const BATCH: usize = 16;
const TOKENS: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [way, dtype] = words.as_slice() else {
        return Err("usage: recompute_memory whole|recomputed f32|bf16".into());
    };
    let config = OptConfig {
        vocab_size: 64,
        dropout: 0.0,
        ..blip2_lm::opt::presets::opt_125m()
    };
    let device = Device::default();
    device.seed(1);
    let mut model = config.init(&device)?;
    if dtype == "bf16" {
        model = model.map(&mut MatricesTo(FloatDType::BF16));
    }
    let model = model.valid();
    let shape = [BATCH, TOKENS, config.hidden_size];
    let x = Tensor::<3>::random(shape, Distribution::Normal(0.0, 0.1), &device);
    let mask = Tensor::<2, Int>::ones([BATCH, TOKENS], &device);
    // Weights are drawn when they are first looked at.
    drop(model.forward(
        x.clone().narrow(0, 0, 1),
        mask.clone().narrow(0, 0, 1),
        None,
    ));
    let before = peak_kib();
    let started = std::time::Instant::now();
    let x = Tensor::from_inner(x).require_grad();
    let hidden = match way.as_str() {
        "whole" => model.forward(x.clone(), mask, None),
        _ => model.forward_recomputed(x.clone(), mask),
    };
    let loss = hidden.square().mean();
    let grad = x.grad(&loss.backward()).ok_or("no gradient")?;
    println!(
        "{way} {dtype}: |gradient| {:.6e}, {:.2} s, {} MiB above the weights",
        grad.square().sum().sqrt().into_scalar::<f32>(),
        started.elapsed().as_secs_f64(),
        (peak_kib() - before) / 1024
    );
    Ok(())
}

/// The most memory that this process has held so far; 0 where the system does not say.
fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok())
        .unwrap_or(0)
}
