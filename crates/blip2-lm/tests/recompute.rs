//! Dropout under recomputation. A program of its own: the backend's random numbers are the process's.

use blip2_lm::OptConfig;
use blip2_lm::opt::presets::opt_125m;
use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor};

/// Both passes must draw the same dropout, or the gradient is that of another function: along its own
/// direction the loss must grow as the gradient says.
#[test]
fn both_passes_draw_the_same_dropout() {
    let device = Device::flex().autodiff();
    device.seed(1);
    let config = OptConfig {
        vocab_size: 16,
        hidden_size: 24,
        word_embed_proj_dim: 24,
        ffn_dim: 48,
        num_hidden_layers: 3,
        num_attention_heads: 3,
        max_position_embeddings: 8,
        dropout: 0.5,
        ..opt_125m()
    };
    let model = config.init(&Device::flex()).unwrap().valid();
    let mask = Tensor::<2, Int>::ones([1, 4], &Device::flex());
    let shape = [1, 4, 24];
    let random = || Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex());
    let (x, direction) = (random(), random());
    let loss = |x: Tensor<3>| {
        device.seed(5);
        let hidden = model.forward_recomputed(x, mask.clone());
        (hidden * Tensor::from_inner(direction.clone())).sum()
    };
    let leaf = Tensor::from_inner(x.clone()).require_grad();
    let grad = leaf.grad(&loss(leaf.clone()).backward()).unwrap();
    let norm = grad.clone().square().sum().sqrt().into_scalar::<f32>();
    assert!(norm > 1.0, "{norm}");
    let step = 1e-2;
    let moved = |sign: f32| {
        let x = x.clone() + grad.clone() * (sign * step / norm);
        loss(Tensor::from_inner(x)).into_scalar::<f32>()
    };
    let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
    assert!((slope - norm).abs() < 0.01 * norm, "{slope}, {norm}");
}
