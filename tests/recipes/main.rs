//! The recipes of `configs/`, and their debug-sized twins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use blip2::stage1::Blip2QformerConfig;
use blip2_qformer::{QFormerConfig, QFormerTextConfig};
use blip2_tests::stderr;
use blip2_tests::{Experiment, expect_code, metrics, read_json};
use toml::{Table, Value};

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs");

const RECIPES: [&str; 9] = [
    "blip2-opt2.7b_8xb32_caption",
    "caption_coco_opt2.7b",
    "caption_coco_opt6.7b",
    "flickr30k",
    "lora_opt2.7b",
    "nocaps_eval",
    "pretrain_stage1",
    "pretrain_stage1_vitL",
    "pretrain_stage2_opt2.7b",
];

/// What a twin may have otherwise: sizes, places, and how long and how often.
const SIZES: [&str; 44] = [
    "data.emoji_scenes",
    "data.num_workers",
    "data.stream.epoch_samples",
    "data.stream.shuffle_window",
    "data.stream.sources[0].annotations",
    "data.stream.sources[0].images",
    "data.stream.sources[1].annotations",
    "data.stream.sources[1].images",
    "data.test[0].annotations",
    "data.test[0].images",
    "data.test[0].limit",
    "data.train.annotations",
    "data.train.images",
    "data.train.limit",
    "data.val.annotations",
    "data.val.images",
    "data.val.limit",
    "evaluation.sample_captions",
    "evaluation.sample_every",
    "evaluation.test_generation.max_new_tokens",
    "evaluation.val_captions",
    "evaluation.val_generation.max_new_tokens",
    "model.data_preprocessor.size",
    "model.init_cfg.checkpoint",
    "model.text_backbone.weights",
    "model.tokenizer",
    "model.vision_backbone.weights",
    "schedule.lr",
    "schedule.warmup_steps",
    "train.accumulation",
    "train.batch_size",
    "train.checkpoint_every",
    "model.multimodal_backbone",
    "model.vision_backbone.architecture",
    "evaluation.batch_size",
    "retrieval.batch_size",
    "retrieval.test_rerank",
    "retrieval.val_images",
    "stage1.bert",
    "stage1.data_preprocessor.size",
    "stage1.embed_dim",
    "stage1.multimodal_backbone",
    "stage1.tokenizer",
    "stage1.vision_backbone",
];

fn table(path: &Path) -> Table {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.parse()
        .unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// Every value by its dotted path.
fn flat(value: &Value, at: String, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(fields) => {
            for (key, value) in fields {
                let dot = if at.is_empty() { "" } else { "." };
                flat(value, format!("{at}{dot}{key}"), into);
            }
        }
        Value::Array(items) if items.first().is_some_and(Value::is_table) => {
            for (index, item) in items.iter().enumerate() {
                flat(item, format!("{at}[{index}]"), into);
            }
        }
        value => {
            into.insert(at, value.clone());
        }
    }
}

fn fields(path: &Path) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    flat(&Value::Table(table(path)), String::new(), &mut fields);
    fields
}

#[test]
fn every_recipe_has_a_twin_that_differs_in_size_alone() {
    let names = |folder: &str| -> BTreeSet<String> {
        fs::read_dir(Path::new(CONFIGS).join(folder))
            .expect("configs")
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                Some(name.strip_suffix(".toml")?.to_string())
            })
            .filter(|name| name != "emoji-scenes")
            .collect()
    };
    let known: BTreeSet<String> = RECIPES.map(String::from).into();
    assert_eq!(names("."), known);
    assert_eq!(names("debug"), known);
    for name in RECIPES {
        let recipe = fields(&Path::new(CONFIGS).join(format!("{name}.toml")));
        let twin = fields(&Path::new(CONFIGS).join(format!("debug/{name}.toml")));
        let keys: BTreeSet<&String> = recipe.keys().chain(twin.keys()).collect();
        for key in keys {
            let size = SIZES
                .iter()
                .any(|size| key == size || key.starts_with(&format!("{size}.")));
            if !size {
                assert_eq!(recipe.get(key), twin.get(key), "{name}: `{key}`");
            }
        }
        for field in [
            "multimodal_backbone.hidden_dropout_prob",
            "multimodal_backbone.attention_probs_dropout_prob",
            "multimodal_backbone.cross_attention_frequency",
            "multimodal_backbone.layer_norm_eps",
            "vision_backbone.frozen",
            "vision_backbone.architecture.drop_path_rate",
            "vision_backbone.architecture.hidden_act",
            "vision_backbone.architecture.pre_layernorm",
        ] {
            for model in ["model", "stage1"] {
                let key = format!("{model}.{field}");
                assert_eq!(recipe.get(&key), twin.get(&key), "{name}: {key}");
            }
        }
    }
}

#[test]
fn full_recipes_are_complete_and_name_source_and_score() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in RECIPES {
        let path = Path::new(CONFIGS).join(format!("{name}.toml"));
        let text = fs::read_to_string(path).expect("a recipe");
        for word in ["# Source:", "# Expected"] {
            assert!(text.contains(word), "{name}: {word}");
        }
        // Nothing is fetched here.
        let local = folder.path().join(format!("{name}.toml"));
        fs::write(&local, text.replace("hf://", "models/")).expect("a copy");
        let recipe = blip2_train::recipe_file::read(&local, &[]).expect("a complete recipe");
        if let Some(model) = recipe.stage1 {
            check_stage1(name, &model);
            continue;
        }
        let model = recipe.model.expect("a captioner");
        model.validate().expect("a possible model");
        if name.starts_with("pretrain") {
            let preset = blip2::presets::preset("blip2-opt-2.7b").expect("a preset");
            let vision = model.vision_backbone.architecture;
            assert_eq!(vision, Some(preset.vision), "{name}");
            assert_eq!(model.multimodal_backbone, preset.qformer, "{name}");
            continue;
        }
        let preset = blip2::presets::preset("caption_coco_opt2.7b").expect("a preset");
        let vision = model.vision_backbone.architecture;
        assert_eq!(vision, Some(preset.vision), "{name}");
        assert_eq!(model.multimodal_backbone, preset.qformer, "{name}");
        assert_eq!(model.data_preprocessor, preset.processor, "{name}");
    }
}

/// LAVIS's sizes, with the text side of BERT and one token more.
fn check_stage1(name: &str, model: &Blip2QformerConfig) {
    model.validate().expect("a possible model");
    let preset = blip2::presets::preset(match name {
        "pretrain_stage1_vitL" => "pretrain_vitL",
        _ => "pretrain",
    });
    let preset = preset.expect("a preset");
    let vision = model.vision_backbone.architecture.clone();
    assert_eq!(vision, Some(preset.vision), "{name}");
    let expected = QFormerConfig {
        text: Some(QFormerTextConfig {
            vocab_size: 30_523,
            ..QFormerTextConfig::bert_base()
        }),
        ..preset.qformer
    };
    assert_eq!(model.multimodal_backbone, expected, "{name}");
    assert_eq!(model.data_preprocessor, preset.processor, "{name}");
}

fn run_twin(name: &str) -> (Experiment, Vec<serde_json::Value>) {
    let experiment = Experiment::new();
    let config = experiment.twin(name);
    let output = experiment.blip2(&format!("train --config {config} --out run"));
    expect_code(&output, 0);
    let run = experiment.path("run");
    let metrics = match run.join("metrics.jsonl").exists() {
        true => metrics(&run),
        false => Vec::new(),
    };
    (experiment, metrics)
}

/// The lines of `kind`.
fn count(metrics: &[serde_json::Value], kind: &str) -> usize {
    metrics.iter().filter(|line| line["kind"] == kind).count()
}

/// What every trained twin leaves behind: 32 images with 5 captions in batches of 8, two of them a
/// step.
fn check_trained(name: &str, epochs: usize) {
    let (experiment, metrics) = run_twin(name);
    assert_eq!(count(&metrics, "train"), 10 * epochs, "{name}");
    assert_eq!(count(&metrics, "valid"), epochs, "{name}");
    assert_eq!(count(&metrics, "samples"), 10 * epochs / 20, "{name}");
    let losses: Vec<f64> = metrics
        .iter()
        .filter(|line| line["kind"] == "train")
        .filter_map(|line| line["loss"].as_f64())
        .collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[losses.len() - 5..]));
    assert!(last < 0.8 * first, "{name} learns: {first}, {last}");
    let scores = read_json(&experiment.path("run/scores.json"));
    assert!(
        scores["splits"]["test"]["scores"]["CIDEr"].is_f64(),
        "{name}"
    );
    assert!(experiment.path("run/report.html").exists(), "{name}");
}

#[test]
fn the_twin_of_caption_coco_opt_2_7b_trains() {
    check_trained("caption_coco_opt2.7b", 5);
}

#[test]
fn the_twin_of_caption_coco_opt_6_7b_trains() {
    check_trained("caption_coco_opt6.7b", 5);
}

#[test]
fn the_twin_of_mmpretrains_caption_recipe_trains() {
    check_trained("blip2-opt2.7b_8xb32_caption", 10);
}

#[test]
fn the_twin_of_flickr30k_trains() {
    check_trained("flickr30k", 5);
}

#[test]
fn the_twin_of_lora_opt_2_7b_trains() {
    check_trained("lora_opt2.7b", 5);
}

#[test]
fn the_twin_of_nocaps_eval_scores() {
    let (experiment, metrics) = run_twin("nocaps_eval");
    assert!(metrics.is_empty(), "nothing is trained");
    let scores = read_json(&experiment.path("run/scores.json"));
    assert_eq!(scores["splits"]["nocaps"]["images"], 8);
    assert_eq!(scores["checkpoint_step"], 0);
}

/// Of stage 1: 64 pairs in batches of 8, ten epochs.
fn check_stage1_trained(experiment: &Experiment, name: &str) {
    let metrics = metrics(&experiment.path(name));
    assert_eq!(count(&metrics, "train"), 8 * 10, "{name}");
    assert_eq!(count(&metrics, "valid"), 10, "{name}");
    let losses = |part: &str| -> Vec<f64> {
        let train = metrics.iter().filter(|line| line["kind"] == "train");
        train
            .filter_map(|line| line["losses"][part].as_f64())
            .collect()
    };
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    for part in ["loss_itc", "loss_itm", "loss_lm"] {
        assert_eq!(losses(part).len(), 80, "{name}: {part}");
    }
    let words = losses("loss_lm");
    let (first, last) = (mean(&words[..4]), mean(&words[76..]));
    assert!(last < 0.9 * first, "{name} learns words: {first}, {last}");
    let scores = read_json(&experiment.path(&format!("{name}/scores.json")));
    let found = &scores["splits"]["test"];
    assert_eq!(found["itm"]["images"], 8, "{name}");
    assert!(
        found["itc"]["t2i"]["R@10"].as_f64() > Some(0.9),
        "of eight images"
    );
    let report = fs::read_to_string(experiment.path(&format!("{name}/report.html")));
    assert!(report.expect("a report").contains("loss_itm"), "{name}");
}

#[test]
fn the_twins_of_both_stages_train_one_after_the_other() {
    let experiment = Experiment::new();
    let stage1 = experiment.twin("pretrain_stage1");
    let train = format!("train --config {stage1} --out pretrain_stage1");
    expect_code(&experiment.blip2(&train), 0);
    check_stage1_trained(&experiment, "pretrain_stage1");

    let stage2 = experiment.twin("pretrain_stage2_opt2.7b");
    let output = experiment.blip2(&format!(
        "train --config {stage2} --out stage2 --set model.init_cfg.checkpoint=pretrain_stage1"
    ));
    expect_code(&output, 0);
    assert!(stderr(&output).contains("the neck is new"));
    let metrics = metrics(&experiment.path("stage2"));
    assert_eq!(count(&metrics, "train"), 8 * 10);
}

#[test]
fn the_twin_of_stage_1_with_clip_trains() {
    let experiment = Experiment::new();
    let config = experiment.twin("pretrain_stage1_vitL");
    let train = format!("train --config {config} --out pretrain_stage1_vitL");
    expect_code(&experiment.blip2(&train), 0);
    check_stage1_trained(&experiment, "pretrain_stage1_vitL");
}

#[test]
fn the_built_in_experiments_are_complete_and_their_stages_fit() {
    let folder = Path::new(CONFIGS).join("emoji-scenes");
    let read = |name: &str| {
        let file = folder.join(format!("{name}.toml"));
        blip2_train::recipe_file::read(&file, &[]).unwrap_or_else(|error| panic!("{error}"))
    };
    for name in ["lm", "vit"] {
        read(name);
    }
    let stage1 = read("stage1").stage1.expect("stage 1");
    let (stage2, captions) = (read("stage2"), read("captions"));
    for recipe in [&stage2, &captions] {
        let model = recipe.model.as_ref().expect("a captioner");
        let seen = QFormerConfig {
            text: None,
            ..stage1.multimodal_backbone.clone()
        };
        assert_eq!(model.multimodal_backbone, seen);
        assert_eq!(
            model.vision_backbone.weights,
            stage1.vision_backbone.weights
        );
    }
    let from = |recipe: &blip2_train::recipe::Recipe| {
        let path = &recipe.init_cfg().expect("a checkpoint").checkpoint;
        path.file_name()
            .and_then(|name| name.to_str())
            .map(String::from)
    };
    assert_eq!(from(&stage2).as_deref(), Some("stage1"));
    assert_eq!(from(&captions).as_deref(), Some("stage2"));
}
