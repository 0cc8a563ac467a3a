//! Peak memory of the output layer in a training step: `head_memory whole` makes all logits at
//! once, `head_memory chunked` does not. Batch 64, 32 tokens, OPT's vocabulary.
//!
//! The peak is that of the process (Linux), so each way has a process of its own.

use blip2_kernels::{tied_cross_entropy, tied_logits};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};

const TOKENS: usize = 64 * 32;
const VOCABULARY: usize = 50272;
const WIDTH: usize = 768;

fn main() {
    let way = std::env::args().nth(1).unwrap_or_default();
    let device = Device::default();
    let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 0.02), &device);
    let embedding = random([VOCABULARY, WIDTH]);
    let hidden = Tensor::<2>::from_inner(random([TOKENS, WIDTH])).require_grad();
    let ids: Vec<i64> = (0..TOKENS).map(|token| (token * 23) as i64).collect();
    let before = peak_kib();
    let started = std::time::Instant::now();
    let loss = match way.as_str() {
        "whole" => {
            let shape = [TOKENS, 1];
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &device);
            let logits = tied_logits(hidden.clone(), embedding);
            log_softmax(logits, 1).gather(1, ids).mean().neg()
        }
        "chunked" => tied_cross_entropy(hidden.clone(), embedding, &ids),
        _ => {
            eprintln!("usage: head_memory whole|chunked");
            std::process::exit(2);
        }
    };
    let grad = hidden.grad(&loss.backward()).expect("a gradient");
    println!(
        "{way}: loss {:.6}, |gradient| {:.6e}, {:.2} s, {} MiB above the weights",
        loss.into_scalar::<f32>(),
        grad.square().sum().sqrt().into_scalar::<f32>(),
        started.elapsed().as_secs_f64(),
        (peak_kib() - before) / 1024
    );
}

/// The most memory that this process has held so far; 0 where the system does not say.
fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok())
        .unwrap_or(0)
}
