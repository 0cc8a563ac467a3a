//! Stage 1 as users meet it: a run that is killed and goes on, features, matching, retrieval,
//! checkpoints for other programs, and the mistakes that can be made with them.

use std::path::Path;

use blip2_tests::{
    Experiment, expect_code, fails, metrics, read_json, stdout, wait_for_checkpoint, weights_sha256,
};
use serde_json::Value;

/// The debug twin, four epochs of it.
const SHORT: &str = "--set train.epochs=4";

fn trained() -> Experiment {
    let experiment = Experiment::new();
    let config = experiment.twin("pretrain_stage1");
    let train = format!("train --config {config} --out run {SHORT}");
    expect_code(&experiment.blip2(&train), 0);
    experiment
}

fn lines(experiment: &Experiment, arguments: &str) -> Vec<Value> {
    let output = experiment.blip2(arguments);
    expect_code(&output, 0);
    let text = stdout(&output);
    let parsed = text.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().expect("JSON lines")
}

fn image(experiment: &Experiment, index: usize) -> String {
    let captions = read_json(&experiment.path("data/annotations/captions_test.json"));
    let name = captions["images"][index]["file_name"].as_str();
    format!("data/images/{}", name.expect("a name"))
}

#[test]
fn a_killed_run_of_stage_1_goes_on_bit_identically() {
    let experiment = trained();
    let config = experiment
        .path("pretrain_stage1.toml")
        .display()
        .to_string();
    let mut process = experiment.start(&format!("train --config {config} --out killed {SHORT}"));
    wait_for_checkpoint(&experiment, "killed", 5);
    process.kill().expect("SIGKILL");
    process.wait().expect("the process ends");
    expect_code(&experiment.blip2("train --resume killed"), 0);
    let (clean, killed) = (experiment.path("run"), experiment.path("killed"));
    assert_eq!(metrics(&clean), metrics(&killed));
    assert_eq!(weights_sha256(&clean, 32), weights_sha256(&killed, 32));
    let scores = |run: &Path| read_json(&run.join("scores.json"));
    assert_eq!(scores(&clean), scores(&killed));
}

/// One model by three commands, and again from the checkpoints that other programs read.
#[test]
fn features_matching_and_retrieval_agree_and_survive_other_programs_checkpoints() {
    let experiment = trained();
    let (one, two) = (image(&experiment, 0), image(&experiment, 1));
    let matched = |model: &str| {
        lines(
            &experiment,
            &format!("match --json --model {model} --image {one} {two} --text dog --text panda"),
        )
    };
    let pairs = matched("run");
    assert_eq!(pairs.len(), 4);
    let features = lines(
        &experiment,
        &format!("features --json --model run --image {one} {two} --text dog --text panda"),
    );
    let vector = |value: &Value| -> Vec<f64> {
        let values = value.as_array().expect("a vector").iter();
        values.filter_map(Value::as_f64).collect()
    };
    for (index, pair) in pairs.iter().enumerate() {
        let text = vector(&features[2 + index % 2]["features"]);
        let queries = features[index / 2]["features"].as_array().expect("queries");
        assert_eq!(queries.len(), 8, "a vector for each query");
        let cosine =
            |query: &Value| -> f64 { vector(query).iter().zip(&text).map(|(a, b)| a * b).sum() };
        let best = queries.iter().map(cosine).fold(f64::NEG_INFINITY, f64::max);
        let itc = pair["itc"].as_f64().expect("a cosine");
        // The same sums in f32 and f64.
        assert!((itc - best).abs() < 1e-5, "{pair} {best}");
        let itm = pair["itm"].as_f64().expect("a probability");
        assert!((0.0..=1.0).contains(&itm));
    }

    let files = experiment.blip2(&format!(
        "features --model run --image {one} --text dog --out features.safetensors"
    ));
    expect_code(&files, 0);
    let bytes = std::fs::read(experiment.path("features.safetensors")).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let shape = |name: &str| file.tensor(name).expect("a tensor").shape().to_vec();
    assert_eq!(shape("image_features"), [1, 8, 64]);
    assert_eq!(shape("text_features"), [1, 64]);

    let split = "--annotations data/annotations/captions_test.json --images data/images";
    let found = lines(
        &experiment,
        &format!("evaluate --task retrieval --model run {split} --rerank 4 --json"),
    );
    let scores = read_json(&experiment.path("run/scores.json"));
    assert_eq!(
        found[0], scores["splits"]["test"],
        "as at the end of the run"
    );

    for format in ["huggingface", "lavis", "burnpack"] {
        let convert = format!("convert --from run --to {format} --format {format}");
        expect_code(&experiment.blip2(&convert), 0);
        for (pair, again) in pairs.iter().zip(matched(format)) {
            for score in ["itc", "itm"] {
                let difference = pair[score].as_f64().expect("a score")
                    - again[score].as_f64().expect("a score");
                // The same numbers; what transformers' file lacks, temperature and words, is not in
                // these scores.
                assert!(difference.abs() < 1e-5, "{format}: {pair} {again}");
            }
        }
    }
}

#[test]
fn the_wrong_model_or_option_is_one_clear_line() {
    let experiment = trained();
    let one = image(&experiment, 0);
    let caption = format!("caption --model run --image {one}");
    fails(&experiment, &caption, 2, &["stage 1", "features"]);
    expect_code(&experiment.train("captioner", "--set train.epochs=0"), 0);
    let features = format!("features --model captioner --image {one}");
    fails(
        &experiment,
        &features,
        2,
        &["captioner", "no run of stage 1"],
    );
    let split = "--annotations data/annotations/captions_test.json --images data/images";
    let rerank = format!("evaluate --model run {split} --rerank 4");
    fails(&experiment, &rerank, 2, &["--rerank", "--task retrieval"]);
    let config = experiment
        .path("pretrain_stage1.toml")
        .display()
        .to_string();
    let train = |set: &str| {
        format!(
            "train --config {config} --out broken-{} --set {set}",
            set.len()
        )
    };
    for (set, expected) in [
        ("stage1.max_txt_len=2", ["stage1.max_txt_len", "at least 3"]),
        ("stage1.temperature=0.0", ["stage1.temperature", "positive"]),
        (
            "stage1.multimodal_backbone.text.vocab_size=9",
            ["vocab_size", "largest token id"],
        ),
        (
            "stage1.tokenizer=nowhere",
            ["nowhere", "tokenizer.json or vocab.txt"],
        ),
        ("stage1.bert=data", ["data", "no weights"]),
        ("task=caption", ["[model]", "missing"]),
    ] {
        let output = experiment.blip2(&train(set));
        let code = output.status.code();
        assert!(matches!(code, Some(1 | 2)), "{set}: {code:?}");
        let text = blip2_tests::stderr(&output);
        for part in expected {
            assert!(text.contains(part), "{set}: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
}
