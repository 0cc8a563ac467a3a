//! Gradients against transformers, and dropout.

#[path = "../../blip2-vision/tests/fixture/mod.rs"]
mod fixture;
#[path = "../../blip2-vision/tests/fixture/gradients.rs"]
mod gradients;

use blip2_qformer::keymap::Names;
use blip2_qformer::{QFormerConfig, VisionNeck};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fixture::Fixture;

/// The last self-attention is nearly saturated in one file: its gradients are a small difference of
/// large numbers, and transformers itself is off by 1.9e-5 there in f32. All others are within 3e-6.
const GRADIENT_TOLERANCE: f64 = 4e-5;

/// Attention weights are dropped with this probability: never in practice, but the path with
/// dropout runs.
const PRACTICALLY_ZERO: f64 = 1e-12;

fn check(file: &str, attention_probs_dropout_prob: f64) {
    let device = Device::default().autodiff();
    let fixture = Fixture::read(file);
    let config = QFormerConfig {
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob,
        ..fixture.config()
    };
    let load = |path: &str| vec![Names::HuggingFace.key(path)];
    let (qformer, _) = fixture.load(config.init(&device).unwrap(), load);
    let probe: Tensor<3> = fixture.tensor("input.probe", &device);
    let neck = VisionNeck::new(config.hidden_size, probe.dims()[2], &device);
    let (neck, _) = fixture.load(neck, |path| vec![Names::HuggingFace.neck_key(path)]);

    let image_embeds: Tensor<3> = fixture.tensor("input.image_embeds", &device).require_grad();
    let prefix = neck.forward(qformer.forward(image_embeds.clone()));
    let gradients = (prefix * probe).sum().backward();

    let tolerance = GRADIENT_TOLERANCE;
    let mut checked = fixture.check_gradients(
        &qformer,
        &gradients,
        |path| Names::HuggingFace.key(path),
        tolerance,
    );
    checked.extend(fixture.check_gradients(
        &neck,
        &gradients,
        |path| Names::HuggingFace.neck_key(path),
        tolerance,
    ));
    let gradient = image_embeds.grad(&gradients).unwrap();
    fixture.check("grad.image_embeds", gradient, tolerance);
    checked.insert("image_embeds".into());
    assert_eq!(checked, fixture.names("grad."));
}

#[test]
fn matches_transformers_gradients_with_burns_attention() {
    check("qformer/every_other_layer.safetensors", 0.0);
    check("qformer/every_layer.safetensors", 0.0);
}

#[test]
fn matches_transformers_gradients_on_the_path_with_dropout() {
    check("qformer/every_other_layer.safetensors", PRACTICALLY_ZERO);
    check("qformer/every_layer.safetensors", PRACTICALLY_ZERO);
}

#[test]
fn each_dropout_acts_in_training_only() {
    let device = Device::default().autodiff();
    device.seed(3);
    let fixture = Fixture::read("qformer/every_other_layer.safetensors");
    let image_embeds: Tensor<3> = fixture.tensor("input.image_embeds", &device);
    for (hidden_dropout_prob, attention_probs_dropout_prob) in [(0.0, 0.5), (0.5, 0.0), (0.0, 0.0)]
    {
        let config = QFormerConfig {
            hidden_dropout_prob,
            attention_probs_dropout_prob,
            ..fixture.config()
        };
        let load = |path: &str| vec![Names::HuggingFace.key(path)];
        let (qformer, _) = fixture.load(config.init(&device).unwrap(), load);
        let plain = qformer.valid().forward(image_embeds.clone().inner());
        let last = format!("tap.layer.{}", config.num_hidden_layers - 1);
        // The reference ran without dropout.
        assert!(fixture.error(&last, plain.clone(), &last) < 1e-5);
        let difference = |other: Tensor<3>| {
            (plain.clone() - other.inner())
                .abs()
                .max()
                .into_scalar::<f32>()
        };
        let training = difference(qformer.forward(image_embeds.clone()));
        let frozen = difference(qformer.clone().freeze().forward(image_embeds.clone()));
        assert!(frozen < 1e-4, "{frozen}");
        if hidden_dropout_prob + attention_probs_dropout_prob > 0.0 {
            assert!(training > 0.1, "{training}");
        } else {
            assert!(training < 1e-4, "{training}");
        }
    }
}
