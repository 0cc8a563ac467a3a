//! Every intermediate of tiny encoders against transformers.

mod fixture;

use blip2_vision::keymap::Names;
use blip2_vision::{VisionConfig, VisionTransformer, interpolate_position_embedding};
use burn::tensor::{Device, FloatDType, Tensor};
use fixture::Fixture;

/// The reference is exact. f32 carries about 6e-8 of relative rounding an operation, and sums over at
/// most 75 products here stay below 1e-6 of the largest value; one layer's error feeds the next.
/// Measured: 7e-7 at worst.
const TOLERANCE_PER_LAYER: f64 = 2e-6;

/// Two products of at most 16 terms in f32, with weights rounded to f32. Measured: 1e-7.
const INTERPOLATION_TOLERANCE: f64 = 1e-6;

fn load(
    file: &str,
    keys: impl Fn(&str) -> Vec<String>,
) -> (Fixture, VisionConfig, VisionTransformer) {
    let fixture = Fixture::read(file);
    let config: VisionConfig = fixture.config();
    let module = config.init(&Device::default()).unwrap();
    let (module, used) = fixture.load(module, keys);
    assert_eq!(used, fixture.names("weight."), "every weight is used");
    (fixture, config, module)
}

fn check_taps(fixture: &Fixture, config: &VisionConfig, module: &VisionTransformer) {
    let images = fixture.tensor("input.images", &Device::default());
    let mut taps = Vec::new();
    let output = module.forward_with_taps(images.clone(), &mut |name, tensor| {
        taps.push((name.to_string(), tensor.clone()));
    });
    for (depth, (name, tensor)) in taps.iter().enumerate() {
        let tolerance = TOLERANCE_PER_LAYER * (depth + 1) as f64;
        fixture.check(&format!("tap.{name}"), tensor.clone(), tolerance);
    }
    let embeddings = if config.pre_layernorm { 3 } else { 2 };
    assert_eq!(taps.len(), embeddings + config.num_hidden_layers);
    let last = taps.pop().unwrap().1;
    for other in [module.forward(images), output] {
        assert_eq!((last.clone() - other).abs().max().into_scalar::<f32>(), 0.0);
    }
}

fn blip2(path: &str) -> Vec<String> {
    keys(Names::Blip2, path)
}

fn keys(names: Names, path: &str) -> Vec<String> {
    let keys = names.keys(path).into_iter();
    keys.map(|key| {
        let place = names.locate(&key.name).unwrap();
        assert_eq!((place.path.as_str(), place.third), (path, key.third));
        key.name
    })
    .collect()
}

#[test]
fn matches_transformers_blip2_vision_model_at_every_tap() {
    let (fixture, config, module) = load("vision/eva.safetensors", blip2);
    check_taps(&fixture, &config, &module);
}

#[test]
fn matches_transformers_blip2_vision_model_without_qkv_bias() {
    let (fixture, config, module) = load("vision/eva_no_qkv_bias.safetensors", blip2);
    assert!(!config.qkv_bias);
    check_taps(&fixture, &config, &module);
}

#[test]
fn matches_transformers_clip_vision_model_at_every_tap() {
    let (fixture, config, module) = load("vision/clip.safetensors", |path| keys(Names::Clip, path));
    assert!(config.pre_layernorm && !config.patch_bias);
    check_taps(&fixture, &config, &module);
}

#[test]
fn matches_transformers_on_larger_images() {
    let (fixture, config, module) = load("vision/eva.safetensors", blip2);
    let images: Tensor<4> = fixture.tensor("input.large_images", &Device::default());
    let module = module.with_image_size(images.dims()[3]).unwrap();
    let tolerance =
        INTERPOLATION_TOLERANCE + TOLERANCE_PER_LAYER * (2 + config.num_hidden_layers) as f64;
    fixture.check("tap.large", module.forward(images), tolerance);
}

#[test]
fn half_precision_images_are_widened_to_the_weights_type() {
    let (fixture, _, module) = load("vision/eva.safetensors", blip2);
    let images: Tensor<4> = fixture.tensor("input.images", &Device::default());
    let half = images.cast(FloatDType::F16);
    let expected = module.forward(half.clone().cast(FloatDType::F32));
    let difference = (module.forward(half) - expected).abs().max();
    assert_eq!(difference.into_scalar::<f32>(), 0.0);
}

#[test]
fn matches_torch_bicubic_interpolation() {
    let fixture = Fixture::read("vision/position_embedding.safetensors");
    let device = Device::default();
    for (case, grid) in [
        ("16_to_26x26", (26, 26)),
        ("4_to_7x5", (7, 5)),
        ("5_to_3x2", (3, 2)),
        ("1_to_3x3", (3, 3)),
    ] {
        let pos = fixture.tensor(&format!("input.{case}"), &device);
        let ours = interpolate_position_embedding(pos, grid).unwrap();
        fixture.check(&format!("tap.{case}"), ours, INTERPOLATION_TOLERANCE);
    }
}
