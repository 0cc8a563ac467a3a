//! Folders of adapters: written as PEFT writes them, and refused where they are damaged or do not belong.

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use blip2::checkpoint::{Import, Precision};
use blip2::lora::{Adapter, LoraConfig, Quantization};
use blip2::{Blip2Caption, Tower};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use fixture::adapters::{CASES, adapted, config, on_text, peft, plain};
use fixture::{folder, load};
use safetensors::SafeTensors;
use serde_json::Value;

#[test]
fn what_was_read_from_peft_is_written_as_peft_had_it() {
    let device = Device::default();
    for case in CASES {
        let model = adapted(case, &device);
        let out = tempfile::tempdir().unwrap();
        let adapter = Adapter::of(&model, "the model").unwrap();
        let layers = model.linear_layers();
        adapter.write(out.path(), "blip2/plain", &layers).unwrap();
        let bytes = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
        let (ours, theirs) = (bytes(out.path()), bytes(&peft(case)));
        let (ours, theirs) = (
            SafeTensors::deserialize(&ours).unwrap(),
            SafeTensors::deserialize(&theirs).unwrap(),
        );
        let keys = |file: &SafeTensors| -> BTreeSet<String> {
            file.names().into_iter().map(str::to_string).collect()
        };
        assert_eq!(keys(&ours), keys(&theirs));
        for (key, theirs) in theirs.iter() {
            let ours = ours.tensor(key).unwrap();
            assert_eq!(ours.dtype(), theirs.dtype(), "{key}");
            assert_eq!(ours.shape(), theirs.shape(), "{key}");
            assert_eq!(ours.data(), theirs.data(), "{key}");
        }
        let config = |folder: &Path| -> Value {
            let text = fs::read_to_string(folder.join("adapter_config.json")).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let (ours, theirs) = (config(out.path()), config(&peft(case)));
        for field in ["peft_type", "bias", "use_rslora", "base_model_name_or_path"] {
            assert_eq!(ours[field], theirs[field], "{field}");
        }
        // The same ranks and scales, in whatever words.
        let read = |folder: &Path| Adapter::read(folder).unwrap().layers;
        let (ours, theirs) = (read(out.path()), read(&peft(case)));
        assert_eq!(ours, theirs);
    }
}

#[test]
fn targets_that_match_nothing_are_an_error_that_lists_what_there_is() {
    let device = Device::default();
    let error = plain(&device)
        .with_lora(&on_text(config(&["query", "qkv"])), &device)
        .unwrap_err()
        .to_string();
    for word in [
        "model.lora.text_backbone.target_modules",
        "language_model.model.decoder.layers.*.self_attn.q_proj (×2)",
        "fc2 (×2)",
    ] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

/// A copy of PEFT's folder, changed.
fn damaged(change: impl Fn(&mut Value, &mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) -> String {
    let out = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(peft("text").join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let bytes = fs::read(peft("text").join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = file
        .iter()
        .map(|(key, view)| {
            let (numbers, _) = view.data().as_chunks::<4>();
            let values = numbers
                .iter()
                .map(|&four| f32::from_le_bytes(four))
                .collect();
            (key.to_string(), (view.shape().to_vec(), values))
        })
        .collect();
    change(&mut config, &mut tensors);
    fs::write(out.path().join("adapter_config.json"), config.to_string()).unwrap();
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(key, (shape, values))| {
            (
                key,
                shape,
                values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            )
        })
        .collect();
    let views = bytes.iter().map(|(key, shape, bytes)| {
        let dtype = safetensors::Dtype::F32;
        let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes).unwrap();
        (key.clone(), view)
    });
    let file = out.path().join("adapter_model.safetensors");
    safetensors::serialize_to_file(views, None, &file).unwrap();
    let device = Device::default();
    let result = Adapter::read(out.path())
        .and_then(|adapter| plain(&device).with_adapter(&adapter, &device));
    match result {
        Err(error) => error.to_string(),
        Ok(_) => panic!("a damaged adapter was accepted"),
    }
}

const LAYER: &str =
    "base_model.model.language_model.model.decoder.layers.0.self_attn.q_proj.lora_A.weight";

#[test]
fn damaged_adapters_are_refused_by_name() {
    for (words, error) in [
        (
            vec!["use_dora"],
            damaged(|config, _| config["use_dora"] = true.into()),
        ),
        (
            vec![
                "q_proj.lora_A.weight",
                "expected shape [8, 20], found [4, 20]",
            ],
            damaged(|config, _| config["r"] = 8.into()),
        ),
        (
            vec!["self_attn.q_proj", "no `.lora_A.weight`", "damaged"],
            damaged(|_, tensors| {
                tensors.remove(LAYER);
            }),
        ),
        (
            vec!["target_modules", "k_proj", "no tensors"],
            damaged(|config, _| {
                config["target_modules"] = serde_json::json!(["q_proj", "v_proj", "k_proj"])
            }),
        ),
        (
            vec![
                "unexpected",
                "base_model.model.language_model.lm_head.weight",
            ],
            damaged(|_, tensors| {
                let key = "base_model.model.language_model.lm_head.weight";
                tensors.insert(key.into(), (vec![1], vec![0.0]));
            }),
        ),
        (
            vec!["language_projection", "no linear layer of"],
            damaged(|_, tensors| {
                for (half, shape) in [("A", vec![4, 16]), ("B", vec![20, 4])] {
                    let key = format!("base_model.model.language_projection.lora_{half}.weight");
                    let values = vec![0.0; shape.iter().product()];
                    tensors.insert(key, (shape, values));
                }
            }),
        ),
        (
            vec!["q_proj.lora_A.weight", "NaN"],
            damaged(|_, tensors| {
                tensors.get_mut(LAYER).unwrap().1[3] = f32::NAN;
            }),
        ),
    ] {
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    }
}

#[test]
fn adapters_of_another_base_are_refused() {
    let device = Device::default();
    let adapter = Adapter::read(&peft("text")).unwrap();
    let other = load(&Import::new(folder("sharded")), &device).model;
    let error = other
        .with_adapter(&adapter, &device)
        .unwrap_err()
        .to_string();
    for word in ["q_proj", "20 inputs", "16", "another base"] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    let mut checkpoint = Import::new(folder("sharded")).open().unwrap();
    let merged = adapter.merge_into(&mut checkpoint.weights, &checkpoint.architecture);
    assert!(merged.unwrap_err().to_string().contains("another base"));
    let twice = adapted("text", &device).with_adapter(&adapter, &device);
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("has adapters already")
    );
}

/// Draws weights anew.
struct Redraw;

impl ModuleMapper for Redraw {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|x| Tensor::random(x.dims(), Distribution::Normal(0.0, 0.3), &x.device()))
    }
}

/// Half precision and eight bits are the same base; another model of the same size is not.
#[test]
fn adapters_know_the_weights_that_they_were_trained_on() {
    let device = Device::default();
    let out = tempfile::tempdir().unwrap();
    let model = adapted("text", &device);
    let adapter = Adapter::of(&model, "the model").unwrap();
    let written = adapter.write(out.path(), "plain", &model.linear_layers());
    written.unwrap();
    let adapter = Adapter::read(out.path()).unwrap();
    assert_eq!(adapter.fingerprints.len(), 4);

    plain(&device).with_adapter(&adapter, &device).unwrap();
    let mut checkpoint = Import::new(folder("plain")).open().unwrap();
    let half = checkpoint.load(&device, Precision::BF16, None).unwrap();
    half.model.with_adapter(&adapter, &device).unwrap();
    let quantized = on_text(LoraConfig {
        quantize: Some(Quantization::Int8),
        init: Some(out.path().to_path_buf()),
        ..config(&["q_proj", "v_proj"])
    });
    let model = plain(&device).with_lora(&quantized, &device).unwrap();
    model.with_adapters_from(&quantized).unwrap();
    adapter
        .merge_into(&mut checkpoint.weights, &checkpoint.architecture)
        .unwrap();

    let other = |mut model: Blip2Caption| {
        let text = model.text_backbone.get().clone().map(&mut Redraw);
        model.text_backbone = Tower::new(text, true);
        model
    };
    let refused = other(plain(&device)).with_adapter(&adapter, &device);
    let error = refused.unwrap_err().to_string();
    for word in ["another base (plain)", "weights of its layers"] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    // PEFT says nothing about them.
    let theirs = Adapter::read(&peft("text")).unwrap();
    other(plain(&device))
        .with_adapter(&theirs, &device)
        .unwrap();
}
