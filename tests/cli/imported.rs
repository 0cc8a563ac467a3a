//! Checkpoints of other programs at the command line: inspect, convert, caption, evaluate, train.

use std::fs;
use std::path::{Path, PathBuf};

use blip2_tests::{Experiment, expect_code, read_json, stderr, stdout};
use serde_json::Value;

/// The tiny models of tests/reference/blip2.py.
fn reference(name: &str) -> PathBuf {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/blip2");
    models.join(name)
}

/// An experiment with links to the models in its folder: `plain`, `lavis_trained.pth`, …
fn experiment() -> Experiment {
    let experiment = Experiment::new();
    for name in ["plain", "sharded", "lavis_trained.pth", "mmpretrain.pth"] {
        let (from, to) = (reference(name), experiment.path(name));
        if from.is_dir() {
            fs::create_dir(&to).unwrap();
            for entry in fs::read_dir(from).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        } else {
            fs::copy(from, to).unwrap();
        }
    }
    experiment
}

fn captions(experiment: &Experiment, model: &str, flags: &str) -> Vec<Value> {
    let output = experiment.blip2(&format!(
        "caption --model {model} --image data/images/000001.jpg --image data/images/000002.png \
         --max-new-tokens 8 --json {flags}"
    ));
    expect_code(&output, 0);
    stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON alone on stdout"))
        .collect()
}

/// What is written, without the scores: they differ by rounding where a layout leaves out biases
/// that do nothing.
fn token_ids(lines: &[Value]) -> Vec<&Value> {
    let captions = lines.iter().flat_map(|line| line["captions"].as_array());
    captions
        .flatten()
        .map(|caption| &caption["token_ids"])
        .collect()
}

#[test]
fn models_of_every_layout_convert_and_caption_alike() {
    let experiment = experiment();
    let expected = captions(&experiment, "plain", "--num-beams 3");
    for (from, flags) in [
        ("plain", "--format lavis"),
        ("plain", "--format burnpack"),
        ("lavis_trained.pth", "--base plain"),
        ("mmpretrain.pth", "--base plain --format huggingface"),
    ] {
        let output = experiment.blip2(&format!("convert --from {from} --to out {flags}"));
        expect_code(&output, 0);
        assert!(stderr(&output).contains("every tensor was read back and is the same"));
        assert!(experiment.path(stdout(&output).trim()).is_file());
        let converted = captions(&experiment, "out", "--num-beams 3");
        assert_eq!(
            token_ids(&converted),
            token_ids(&expected),
            "{from} {flags}"
        );
        fs::remove_dir_all(experiment.path("out")).unwrap();
    }
    let half = experiment.blip2("convert --from plain --to half --dtype bf16");
    expect_code(&half, 0);
    let size = |model: &str| {
        let file = experiment.path(model).join("model.safetensors");
        fs::metadata(file).unwrap().len()
    };
    assert!(size("half") < size("plain") * 6 / 10);
    captions(&experiment, "half", "");
    // Nothing is overwritten.
    let again = experiment.blip2("convert --from plain --to half");
    expect_code(&again, 1);
    assert!(stderr(&again).contains("not empty"), "{}", stderr(&again));
}

#[test]
fn inspect_gives_account_of_every_key() {
    let experiment = experiment();
    let output = experiment.blip2("inspect mmpretrain.pth --base plain");
    expect_code(&output, 0);
    let text = stdout(&output);
    for expected in [
        "loaded: 105",
        "supplied by base: 36",
        "dropped: 1",
        "missing: none",
        "unexpected: none",
        "text_backbone",
        "memory estimate",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    fs::copy(
        experiment.path("mmpretrain.pth"),
        experiment.path("plain/model.pth"),
    )
    .unwrap();
    fs::remove_file(experiment.path("plain/model.safetensors")).unwrap();
    let output = experiment.blip2("inspect plain");
    expect_code(&output, 1);
    assert!(
        stdout(&output).contains("missing: 36"),
        "{}",
        stdout(&output)
    );
    assert!(
        stderr(&output).contains("text_backbone.model.decoder"),
        "{}",
        stderr(&output)
    );
    for preset in ["blip2-opt-2.7b", "caption_coco_opt2.7b", "pretrain_vitL"] {
        let output = experiment.blip2(&format!("inspect {preset}"));
        expect_code(&output, 0);
        assert!(stdout(&output).contains("multimodal_backbone"));
    }
    expect_code(&experiment.blip2("inspect blip2-opt-13b"), 2);
}

#[test]
fn imported_models_are_evaluated_and_sampled() {
    let experiment = experiment();
    let data = "--annotations data/annotations/captions_test.json --images data/images";
    let evaluate = |model: &str, flags: &str| -> Value {
        let output = experiment.blip2(&format!("evaluate --model {model} {data} --json {flags}"));
        expect_code(&output, 0);
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    // The model has 66 positions after its queries, enough for every caption.
    let scores = evaluate("plain", "--num-beams 2 --max-new-tokens 6 --batch-size 3");
    assert!(scores["loss"].as_f64().unwrap() > 0.0);
    assert!(scores["scores"]["CIDEr"].is_number(), "{scores}");
    let alone = evaluate("plain", "--loss-only --batch-size 1");
    let difference = scores["loss"].as_f64().unwrap() - alone["loss"].as_f64().unwrap();
    // Padding and other rows change nothing but the order of f32 sums.
    assert!(difference.abs() < 1e-5, "{difference}");
    assert_eq!(scores["tokens"], alone["tokens"]);
    let prompted = evaluate("plain", "--loss-only --prompt a");
    assert_ne!(prompted["loss"], alone["loss"]);

    let sample = |seed: usize| {
        let flags =
            format!("--do-sample --num-captions 3 --temperature 1.5 --top-k 0 --seed {seed}");
        captions(&experiment, "plain", &flags)
    };
    let drawn = sample(1);
    assert_eq!(drawn, sample(1));
    assert_ne!(drawn, sample(2));
    assert_eq!(drawn[0]["captions"].as_array().unwrap().len(), 3);
    let wrong = experiment
        .blip2("caption --model plain --image data/images/000001.jpg --do-sample --num-beams 3");
    expect_code(&wrong, 2);
}

/// Towers and trained parts from checkpoints of other programs, then a run, then out again.
#[test]
fn training_starts_from_imported_parts() {
    let experiment = experiment();
    let config = fs::read_to_string(experiment.path("debug.toml")).unwrap();
    let start = config.find("[model]").unwrap();
    let end = config.find("[data]").unwrap();
    let model = r#"[model]
ln_vision_eps = 1e-6
vision_neck = "linear"
tokenizer = "plain"
prompt = ""
max_txt_len = 60
num_captions = 1
score_bos = false
init_cfg = { checkpoint = "lavis_trained.pth" }
vision_backbone = { frozen = true, weights = "plain" }
text_backbone = { frozen = true, weights = "plain" }

[model.multimodal_backbone]
num_query_tokens = 4
hidden_size = 16
num_hidden_layers = 3
num_attention_heads = 4
intermediate_size = 36
cross_attention_frequency = 2
encoder_hidden_size = 24
hidden_dropout_prob = 0.0
attention_probs_dropout_prob = 0.0
initializer_range = 0.02
layer_norm_eps = 1e-12

[model.data_preprocessor]
size = [28, 28]
resample = "bicubic"
image_mean = [0.48145466, 0.4578275, 0.40821073]
image_std = [0.26862954, 0.26130258, 0.27577711]

"#;
    let config = format!("{}{model}{}", &config[..start], &config[end..]);
    fs::write(experiment.path("imported.toml"), config).unwrap();
    let run = experiment.blip2("train --config imported.toml --out run --set train.epochs=1");
    expect_code(&run, 0);
    let output = experiment.blip2("convert --from run --to out");
    expect_code(&output, 0);
    let (before, after) = (
        captions(&experiment, "run", ""),
        captions(&experiment, "out", ""),
    );
    assert_eq!(token_ids(&after), token_ids(&before));
    let config = read_json(&experiment.path("out/config.json"));
    assert_eq!(config["model_type"], "blip-2");
    for file in [
        "tokenizer.json",
        "processor_config.json",
        "generation_config.json",
    ] {
        assert!(experiment.path("out").join(file).is_file(), "{file}");
    }
}
