//! Gradients against transformers, and stochastic depth.

mod fixture;
#[path = "fixture/gradients.rs"]
mod gradients;

use blip2_vision::keymap::Names;
use blip2_vision::{DropPath, VisionConfig, VisionTransformer};
use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use fixture::Fixture;

/// A gradient passes every layer twice, and a weight's sums over all tokens of the batch. Measured:
/// 9e-7.
const GRADIENT_TOLERANCE: f64 = 5e-6;

#[test]
fn matches_transformers_gradients() {
    let fixture = Fixture::read("vision/eva.safetensors");
    let device = Device::default().autodiff();
    let module = fixture.config::<VisionConfig>().init(&device).unwrap();
    let (module, _) = fixture.load(module, |path| vec![key(path)]);
    let output = module.forward(fixture.tensor("input.images", &device));
    let gradients = (output * fixture.tensor("input.probe", &device))
        .sum()
        .backward();
    let checked = fixture.check_gradients(&module, &gradients, key, GRADIENT_TOLERANCE);
    assert_eq!(checked, fixture.names("grad."));
}

#[test]
fn interpolated_positions_are_trained_too() {
    let fixture = Fixture::read("vision/eva.safetensors");
    let device = Device::default().autodiff();
    let module = fixture.config::<VisionConfig>().init(&device).unwrap();
    let module = module.with_image_size(20).unwrap();
    let images = fixture.tensor("input.large_images", &device);
    let gradients = module.forward(images).square().sum().backward();
    // This file has no gradients to compare with; a parameter without one panics.
    let file = Fixture::read("vision/position_embedding.safetensors");
    assert!(
        file.check_gradients(&module, &gradients, key, 0.0)
            .is_empty()
    );
}

fn key(path: &str) -> String {
    Names::Blip2.keys(path)[0].name.clone()
}

fn drop_path_config(rate: f64) -> VisionConfig {
    VisionConfig {
        drop_path_rate: rate,
        ..Fixture::read("vision/eva.safetensors").config()
    }
}

#[test]
fn drop_path_drops_whole_samples_and_keeps_the_mean() {
    let rate = 0.25;
    let device = Device::default().autodiff();
    device.seed(7);
    let path: DropPath = DropPath::new(rate);
    let samples = 4000;
    let output = path.forward(Tensor::ones([samples, 2, 3], &device));
    let rows: Vec<f32> = output.inner().into_data().try_to_vec().unwrap();
    let mut dropped = 0usize;
    for row in rows.chunks_exact(6) {
        assert!(row.iter().all(|value| *value == row[0]), "{row:?}");
        if row[0] == 0.0 {
            dropped += 1;
        } else {
            assert!((f64::from(row[0]) - 1.0 / (1.0 - rate)).abs() < 1e-6);
        }
    }
    // 4000 draws: four standard deviations are 0.027.
    let share = dropped as f64 / samples as f64;
    assert!((share - rate).abs() < 0.03, "{share}");
}

#[test]
fn drop_path_acts_in_training_only_and_not_on_the_first_block() {
    let device = Device::default().autodiff();
    device.seed(8);
    let module = drop_path_config(0.9).init(&device).unwrap();
    let images = Tensor::<4>::random(
        [8, 3, 12, 12],
        Distribution::Default,
        &device.clone().inner(),
    );
    let plain = taps(&module.valid(), images.clone());
    let again = taps(&module.valid(), images.clone());
    let training = taps(&module, Tensor::from_inner(images.clone()));
    let frozen = taps(&module.clone().freeze(), Tensor::from_inner(images));
    let last = plain.len() - 1;
    assert_eq!(difference(&plain[last], &again[last]), 0.0);
    assert!(difference(&plain[last], &frozen[last]) < 1e-5);
    assert!(difference(&plain[last], &training[last]) > 1e-3);
    // patch_embed, embeddings, block.0: the rate grows from zero.
    assert!(difference(&plain[2], &training[2]) < 1e-5);
}

fn taps(module: &VisionTransformer, images: Tensor<4>) -> Vec<Tensor<3>> {
    let mut taps = Vec::new();
    module.forward_with_taps(images, &mut |_, tensor| taps.push(tensor.clone().inner()));
    taps
}

fn difference(a: &Tensor<3>, b: &Tensor<3>) -> f32 {
    (a.clone() - b.clone()).abs().max().into_scalar()
}
