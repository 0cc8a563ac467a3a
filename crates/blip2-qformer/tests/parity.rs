//! Every intermediate of tiny Q-Formers against transformers.

#[path = "../../blip2-vision/tests/fixture/mod.rs"]
mod fixture;

use blip2_qformer::keymap::Names;
use blip2_qformer::{QFormerConfig, VisionNeck};
use burn::tensor::{Device, FloatDType, Tensor};
use fixture::Fixture;

/// The reference is exact. f32 carries about 6e-8 of relative rounding an operation, and sums over at
/// most 28 products here stay below 1e-6 of the largest value; one layer's error feeds the next.
/// Measured: 5e-7 at worst.
const TOLERANCE_PER_LAYER: f64 = 2e-6;

fn check(file: &str) {
    let device = Device::default();
    let fixture = Fixture::read(file);
    let config: QFormerConfig = fixture.config();
    let (qformer, used) = fixture.load(config.init(&device).unwrap(), |path| {
        let key = Names::HuggingFace.key(path);
        assert_eq!(
            Names::HuggingFace.locate(&key).as_deref(),
            Some(path),
            "{key}"
        );
        vec![key]
    });
    let neck_tap: Tensor<3> = fixture.tensor("tap.neck", &device);
    let neck = VisionNeck::new(config.hidden_size, neck_tap.dims()[2], &device);
    let (neck, used_by_neck) = fixture.load(neck, |path| {
        let key = Names::HuggingFace.neck_key(path);
        assert_eq!(
            Names::HuggingFace.locate_neck(&key).as_deref(),
            Some(path),
            "{key}"
        );
        vec![key]
    });
    let all = used.union(&used_by_neck).cloned().collect();
    assert_eq!(fixture.names("weight."), all, "every weight is used");

    let image_embeds = fixture.tensor("input.image_embeds", &device);
    let mut taps = Vec::new();
    let output = qformer.forward_with_taps(image_embeds.clone(), &mut |name, tensor| {
        taps.push((name.to_string(), tensor.clone()));
    });
    assert_eq!(taps.len(), 1 + config.num_hidden_layers);
    taps.push(("neck".into(), neck.forward(output.clone())));
    for (depth, (name, tensor)) in taps.into_iter().enumerate() {
        let tolerance = TOLERANCE_PER_LAYER * (depth + 1) as f64;
        fixture.check(&format!("tap.{name}"), tensor, tolerance);
    }
    let difference = (output - qformer.forward(image_embeds)).abs().max();
    assert_eq!(difference.into_scalar::<f32>(), 0.0);
}

#[test]
fn half_precision_image_embeds_are_widened_to_the_weights_type() {
    let device = Device::default();
    let fixture = Fixture::read("qformer/every_layer.safetensors");
    let qformer = fixture.config::<QFormerConfig>().init(&device).unwrap();
    let image_embeds: Tensor<3> = fixture.tensor("input.image_embeds", &device);
    let half = image_embeds.cast(FloatDType::F16);
    let expected = qformer.forward(half.clone().cast(FloatDType::F32));
    let difference = (qformer.forward(half) - expected).abs().max();
    assert_eq!(difference.into_scalar::<f32>(), 0.0);
}

#[test]
fn matches_transformers_blip2_qformer_with_cross_attention_in_every_other_layer() {
    check("qformer/every_other_layer.safetensors");
}

#[test]
fn matches_transformers_blip2_qformer_with_cross_attention_in_every_layer() {
    check("qformer/every_layer.safetensors");
}
