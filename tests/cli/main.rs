//! The command line: what each command prints, and where.

mod imported;
mod own_data;
mod plan;
mod scores;

use blip2_tests::{Experiment, expect_code, metrics, read_json, stderr, stdout};
use serde_json::Value;

/// Everything that a run folder holds, and the commands that read it.
#[test]
fn a_run_leaves_its_folder_and_the_commands_read_it() {
    let experiment = Experiment::new();
    // A language model that learns has clear favourites; a random one has ties, which rounding breaks
    // one way in a batch and another way alone.
    let output = experiment.train("run", "--set model.text_backbone.frozen=false");
    expect_code(&output, 0);
    let run = experiment.path("run");
    assert_eq!(
        stdout(&output).trim(),
        run.canonicalize().unwrap().display().to_string()
    );
    let progress = stderr(&output);
    for expected in [
        "epoch 1/2 train 32/32",
        "items/s",
        "ETA",
        "frozen vision_backbone is bit-identical",
    ] {
        assert!(progress.contains(expected), "{expected}: {progress}");
    }
    for file in [
        "config.toml",
        "metrics.jsonl",
        "scores.json",
        "report.html",
        "log.txt",
        "captions/epoch-1.json",
        "captions/test.json",
        "checkpoints/step-16/state.json",
    ] {
        assert!(run.join(file).exists(), "{file}");
    }
    let scores = read_json(&run.join("scores.json"));
    assert!(
        scores["splits"]["test"]["scores"]["CIDEr"].is_number(),
        "{scores}"
    );
    assert!(
        scores["constant_caption"]["test"]["caption"].is_string(),
        "{scores}"
    );
    let report = std::fs::read_to_string(run.join("report.html")).unwrap();
    for expected in [
        "<polyline",
        "data:image/jpeg;base64,",
        "vision_backbone",
        "images/s",
    ] {
        assert!(report.contains(expected), "{expected}");
    }
    assert!(!report.contains("http"), "nothing is loaded from elsewhere");

    caption(&experiment);
    evaluate(&experiment);
    inspect(&experiment);
    score(&experiment);
}

fn caption(experiment: &Experiment) {
    let images =
        "--image data/images/000002.png data/images/000001.jpg --image data/images/000003.jpg";
    let output = experiment.blip2(&format!(
        "caption --model run {images} --json --num-beams 3 --num-captions 2 --max-new-tokens 5"
    ));
    expect_code(&output, 0);
    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON alone on stdout"))
        .collect();
    let order: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["image"].as_str())
        .collect();
    assert_eq!(
        order,
        [
            "data/images/000002.png",
            "data/images/000001.jpg",
            "data/images/000003.jpg"
        ]
    );
    for line in &lines {
        let captions = line["captions"].as_array().unwrap();
        assert_eq!(captions.len(), 2);
        assert!(captions[0]["score"].as_f64() >= captions[1]["score"].as_f64());
        assert!(captions[0]["token_ids"].as_array().unwrap().len() <= 5);
        assert!(captions[0]["caption"].is_string());
    }
    // One image at a time gives the same.
    for (batch_size, line) in [1, 2].into_iter().zip([0, 2]) {
        let image = lines[line]["image"].as_str().unwrap();
        let single = experiment.blip2(&format!(
            "caption --model run --image {image} --json --num-beams 3 --num-captions 2 \
             --max-new-tokens 5 --batch-size {batch_size}"
        ));
        let single: Value = serde_json::from_str(&stdout(&single)).unwrap();
        assert_eq!(
            single["captions"][0]["token_ids"],
            lines[line]["captions"][0]["token_ids"]
        );
    }
    let plain = experiment.blip2(&format!("caption --model run {images} --num-beams 1"));
    expect_code(&plain, 0);
    assert_eq!(stdout(&plain).lines().count(), 3, "one caption a line");
}

fn evaluate(experiment: &Experiment) {
    let data = "--annotations data/annotations/captions_test.json --images data/images";
    let output = experiment.blip2(&format!("evaluate --model run {data} --json"));
    expect_code(&output, 0);
    let scores: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(scores["loss"].as_f64().unwrap() > 0.0 && scores["tokens"].as_u64().unwrap() > 100);
    let run = read_json(&experiment.path("run/scores.json"));
    assert_eq!(
        scores["scores"], run["splits"]["test"]["scores"],
        "as the run scored itself"
    );
    let loss = experiment.blip2(&format!("evaluate --model run {data} --loss-only --json"));
    let loss: Value = serde_json::from_str(&stdout(&loss)).unwrap();
    assert_eq!(loss["loss"], scores["loss"]);
    assert!(loss.get("scores").is_none());
}

fn inspect(experiment: &Experiment) {
    for target in ["run", "debug.toml"] {
        let output = experiment.blip2(&format!("inspect {target}"));
        expect_code(&output, 0);
        let text = stdout(&output);
        for expected in ["vision_backbone", "frozen", "trained", "memory estimate"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}

fn score(experiment: &Experiment) {
    let files =
        "--references data/annotations/captions_test.json --candidates run/captions/test.json";
    let output = experiment.blip2(&format!("score {files} --json"));
    expect_code(&output, 0);
    let scores: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let run = read_json(&experiment.path("run/scores.json"));
    assert_eq!(scores["scores"], run["splits"]["test"]["scores"]);
    let only = experiment.blip2(&format!("score {files} --metrics CIDEr --json"));
    let only: Value = serde_json::from_str(&stdout(&only)).unwrap();
    assert_eq!(only["scores"].as_object().unwrap().len(), 1);
}

/// The random frozen language model can't be steered, so this one learns too.
#[test]
fn training_lowers_the_loss() {
    let experiment = Experiment::new();
    let set = "--set model.text_backbone.frozen=false --set train.epochs=3";
    expect_code(&experiment.train("run", set), 0);
    let losses: Vec<f64> = metrics(&experiment.path("run"))
        .iter()
        .filter(|record| record["kind"] == "train")
        .filter_map(|record| record["loss"].as_f64())
        .collect();
    // From ln(320) = 5.8 nats; the words of captions are learned first.
    assert!(losses[0] > 5.0 && losses[23] < 4.5, "{losses:?}");
}

#[test]
fn without_epochs_a_run_evaluates_the_untrained_model() {
    let experiment = Experiment::new();
    expect_code(&experiment.train("run", "--set train.epochs=0"), 0);
    let scores = read_json(&experiment.path("run/scores.json"));
    assert_eq!(scores["checkpoint_step"], 0);
}

#[test]
fn both_tower_recipes_train_and_export() {
    let experiment = Experiment::new();
    let configs = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/emoji-scenes");
    for (name, sets) in [
        (
            "lm",
            "language_model.export=lm language_model.architecture.hidden_size=16 \
             language_model.architecture.word_embed_proj_dim=16 \
             language_model.architecture.num_hidden_layers=1",
        ),
        (
            "vit",
            "patch_classification.export=vit \
             patch_classification.train_instances=data/annotations/instances_train.json \
             patch_classification.val_instances=data/annotations/instances_val.json \
             patch_classification.architecture.num_hidden_layers=1",
        ),
    ] {
        let own_data = "train.epochs=1 data.emoji_scenes= \
             data.train.annotations=data/annotations/captions_train.json data.train.images=data/images \
             data.val.annotations=data/annotations/captions_val.json data.val.images=data/images";
        let text = std::fs::read_to_string(format!("{configs}/{name}.toml")).unwrap();
        // Without its data set, which these tests do not make.
        let text = text.replace("emoji_scenes = \"../../datasets/emoji-scenes\"\n", "");
        std::fs::write(experiment.path(&format!("{name}.toml")), text).unwrap();
        let sets: String = format!("{own_data} {sets}")
            .split_whitespace()
            .filter(|set| !set.ends_with("emoji_scenes="))
            .map(|set| format!(" --set {set}"))
            .collect();
        let run = format!("train --config {name}.toml --out run-{name}{sets}");
        expect_code(&experiment.blip2(&run), 0);
        for file in ["config.json", "model.safetensors"] {
            assert!(experiment.path(name).join(file).exists(), "{name}/{file}");
        }
    }
    // The towers fit the captioner that reads them.
    let config = std::fs::read_to_string(experiment.path("debug.toml")).unwrap();
    let start = config.find("[model.text_backbone.architecture]").unwrap();
    let end = start + config[start..].find("[model.data_preprocessor]").unwrap();
    let config = format!("{}weights = \"lm\"\n\n{}", &config[..start], &config[end..])
        .replace("tokenizer = \"tokenizer\"", "tokenizer = \"lm\"");
    std::fs::write(experiment.path("towers.toml"), config).unwrap();
    let output =
        experiment.blip2("train --config towers.toml --out captioner --set train.epochs=1");
    expect_code(&output, 0);
}

#[test]
fn every_shipped_config_is_complete() {
    let experiment = Experiment::new();
    let configs = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs");
    let output = experiment.blip2(&format!("inspect {configs}/emoji-scenes.toml"));
    expect_code(&output, 0);
    assert!(stdout(&output).contains("multimodal_backbone"));
}

#[test]
fn help_goes_to_stdout_and_mistakes_to_stderr_with_code_2() {
    let experiment = Experiment::new();
    let help = experiment.blip2("--help");
    expect_code(&help, 0);
    for command in [
        "train", "caption", "evaluate", "score", "convert", "inspect", "devices", "data",
    ] {
        assert!(stdout(&help).contains(command), "{command}");
    }
    for wrong in [
        "",
        "paint",
        "train --no-such-flag",
        "caption --model run",
        "inspect debug.toml --device tpu",
    ] {
        let output = experiment.blip2(wrong);
        expect_code(&output, 2);
        assert_eq!(stdout(&output), "", "{wrong}");
    }
}
