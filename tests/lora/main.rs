//! Runs with LoRA adapters: what learns, what is saved, what comes out, what is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use blip2::checkpoint::Source;
use blip2_tests::{Experiment, expect_code, fails, metrics, read_json, stderr, stdout};
use serde_json::Value;

/// The parts of the tiny model `plain` of tests/reference/blip2.py, adapted.
const MODEL: &str = r#"[model]
ln_vision_eps = 1e-6
vision_neck = "linear"
tokenizer = "plain"
prompt = ""
max_txt_len = 60
num_captions = 1
score_bos = false
init_cfg = { checkpoint = "plain" }
vision_backbone = { frozen = true, weights = "plain" }
text_backbone = { frozen = true, weights = "plain" }

[model.lora.text_backbone]
target_modules = ["q_proj", "v_proj"]
r = 4
lora_alpha = 16

[model.multimodal_backbone]
num_query_tokens = 4
hidden_size = 16
num_hidden_layers = 3
num_attention_heads = 4
intermediate_size = 36
cross_attention_frequency = 2
encoder_hidden_size = 24
hidden_dropout_prob = 0.1
attention_probs_dropout_prob = 0.1
initializer_range = 0.02
layer_norm_eps = 1e-12

[model.data_preprocessor]
size = [28, 28]
resample = "bicubic"
image_mean = [0.48145466, 0.4578275, 0.40821073]
image_std = [0.26862954, 0.26130258, 0.27577711]

"#;

fn copy(from: &str, to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("reference")
        .join(from);
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the reference") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

/// An experiment with `lora.toml` and copies of the models that it needs.
fn experiment() -> Experiment {
    let experiment = Experiment::new();
    copy("blip2/plain", &experiment.path("plain"));
    copy("blip2/sharded", &experiment.path("sharded"));
    copy("lora/text", &experiment.path("peft"));
    let config = fs::read_to_string(experiment.path("debug.toml")).expect("the config");
    let (start, end) = (config.find("[model]"), config.find("[data]"));
    let (start, end) = (start.expect("[model]"), end.expect("[data]"));
    let config = format!("{}{MODEL}{}", &config[..start], &config[end..]);
    fs::write(experiment.path("lora.toml"), config).expect("the config");
    experiment
}

fn train(experiment: &Experiment, run: &str, flags: &str) -> String {
    let train = format!("train --config lora.toml --out {run} {flags}");
    let output = experiment.blip2(&train);
    expect_code(&output, 0);
    stderr(&output)
}

fn captions(experiment: &Experiment, model: &str) -> Vec<Value> {
    let output = experiment.blip2(&format!(
        "caption --model {model} --image data/images/000001.jpg --image data/images/000002.png \
         --max-new-tokens 8 --num-beams 3 --json"
    ));
    expect_code(&output, 0);
    let lines = stdout(&output);
    let lines = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("JSON alone on stdout");
        line["captions"][0].clone()
    });
    lines.collect()
}

/// The same token ids, and scores (sums of logarithms of 8 probabilities) within rounding.
fn assert_alike(one: &[Value], other: &[Value]) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(other) {
        assert_eq!(one["token_ids"], other["token_ids"]);
        let score = |caption: &Value| caption["score"].as_f64().expect("a score");
        let difference = score(one) - score(other);
        assert!(difference.abs() < 1e-4, "{difference}");
    }
}

fn keys(run: &Path, file: &str) -> BTreeSet<String> {
    let source = Source::open(&run.join("checkpoints/step-16").join(file)).expect("a burnpack");
    source.tensors().keys().cloned().collect()
}

#[test]
fn a_run_trains_and_saves_adapters_beside_the_qformer_and_its_base_stays() {
    let experiment = experiment();
    let progress = train(&experiment, "run", "");
    for expected in [
        "LoRA on 4 of 12 linear layers of text_backbone, 640 parameters, r 4, scale 4: ",
        "language_model.model.decoder.layers.*.self_attn.q_proj (×2)",
        "text_backbone LoRA",
        "frozen text_backbone is bit-identical",
    ] {
        assert!(progress.contains(expected), "{expected}: {progress}");
    }
    let run = experiment.path("run");
    let names = keys(&run, "model.bpk");
    let of_text: Vec<&String> = names
        .iter()
        .filter(|name| name.contains("text_backbone"))
        .collect();
    assert_eq!(of_text.len(), 8, "{of_text:?}");
    assert!(of_text.iter().all(|name| name.contains(".lora.")));
    assert!(names.iter().any(|name| name.contains("query_tokens")));
    let report = fs::read_to_string(run.join("report.html")).expect("the report");
    assert!(report.contains("text_backbone LoRA"));
    let inspect = experiment.blip2("inspect run");
    expect_code(&inspect, 0);
    let text = stdout(&inspect);
    for expected in ["text_backbone LoRA", "640  trained", "LoRA on 4 of 12"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // A language model that was frozen has the same hash.
    train(
        &experiment,
        "base",
        "--set model.lora={} --set train.epochs=0",
    );
    let hashes =
        |run: &str| read_json(&experiment.path(run).join("scores.json"))["frozen_towers"].clone();
    assert_eq!(hashes("run"), hashes("base"));

    fails(
        &experiment,
        "train --config lora.toml --out next --set model.init_cfg.checkpoint=run",
        1,
        &["holds LoRA adapters", "--merge-lora"],
    );

    // One model comes out of it, or adapters that are not all of it.
    let run_captions = captions(&experiment, "run");
    fails(
        &experiment,
        "convert --from run --to out",
        2,
        &["--merge-lora", "--adapter"],
    );
    expect_code(
        &experiment.blip2("convert --from run --to merged --merge-lora"),
        0,
    );
    assert_alike(&captions(&experiment, "merged"), &run_captions);
    let adapter = experiment.blip2("convert --from run --to adapter --adapter");
    expect_code(&adapter, 0);
    let note = stderr(&adapter);
    for expected in [
        "also trained ln_vision, multimodal_backbone, vision_neck",
        "--merge-lora",
    ] {
        assert!(note.contains(expected), "{expected}: {note}");
    }
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        assert!(experiment.path("adapter").join(file).is_file(), "{file}");
    }
}

#[test]
fn adapters_that_learn_alone_are_all_that_a_run_made() {
    let experiment = experiment();
    let only = "--set model.lora.adapters_only=true";
    train(&experiment, "run", only);
    let names = keys(&experiment.path("run"), "model.bpk");
    assert_eq!(names.len(), 8, "{names:?}");
    let run = captions(&experiment, "run");
    let base = captions(&experiment, "plain");
    assert_ne!(run[0]["score"], base[0]["score"]);

    let convert = experiment.blip2("convert --from run --to adapter --adapter");
    expect_code(&convert, 0);
    assert!(!stderr(&convert).contains("also trained"));
    assert_alike(&captions(&experiment, "plain --lora adapter"), &run);
    let merge = "convert --from plain --lora adapter --merge-lora --to merged";
    expect_code(&experiment.blip2(merge), 0);
    assert_alike(&captions(&experiment, "merged"), &run);

    let data = "--annotations data/annotations/captions_test.json --images data/images";
    let loss = |model: &str| {
        let output = experiment.blip2(&format!(
            "evaluate --model {model} {data} --loss-only --json"
        ));
        expect_code(&output, 0);
        let output: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        output["loss"].as_f64().expect("a loss")
    };
    let (of_run, of_base) = (loss("merged"), loss("plain"));
    assert!((loss("plain --lora adapter") - of_run).abs() < 1e-5);
    assert!(
        of_run < 0.9 * of_base,
        "adapters learn: {of_base}, {of_run}"
    );

    // A run that learns nothing more is what it starts from.
    let again = format!(
        "{only} --set model.lora.text_backbone.init=adapter --set schedule.lr=0.0 --set \
         schedule.min_lr=0.0 --set schedule.warmup_lr=0.0 --set train.epochs=1"
    );
    train(&experiment, "again", &again);
    assert_alike(&captions(&experiment, "again"), &run);
}

#[test]
fn every_part_takes_adapters_and_a_quantized_base_learns_alike() {
    let experiment = experiment();
    let lora = "--set model.lora={adapters_only=true,\
                vision_backbone={target_modules=[\"qkv\"],r=2,lora_alpha=4},\
                multimodal_backbone={target_modules=\".*\\\\.(query|value)\",r=3,lora_alpha=3},\
                text_backbone={target_modules=[\"q_proj\",\"v_proj\"],r=4,lora_alpha=16QUANTIZE}}";
    let mut last = Vec::new();
    for (run, quantize) in [("whole", ""), ("int8", ",quantize=\"int8\"")] {
        let progress = train(&experiment, run, &lora.replace("QUANTIZE", quantize));
        for part in ["vision_backbone", "multimodal_backbone", "text_backbone"] {
            let frozen = format!("frozen {part} is bit-identical");
            assert!(progress.contains(&frozen), "{frozen}: {progress}");
            assert!(progress.contains(&format!("linear layers of {part}")));
        }
        let merged = format!("{run}-merged");
        let convert = format!("convert --from {run} --merge-lora --to {merged}");
        expect_code(&experiment.blip2(&convert), 0);
        assert_alike(&captions(&experiment, &merged), &captions(&experiment, run));
        let losses = metrics(&experiment.path(run));
        let train: Vec<f64> = losses
            .iter()
            .filter(|line| line["kind"] == "train")
            .filter_map(|line| line["loss"].as_f64())
            .collect();
        assert!(train[15] < 0.9 * train[0], "{train:?}");
        last.push(train[15]);
    }
    // Rounding to eight bits changes the way, but not by much.
    assert_ne!(last[0], last[1]);
    assert!((last[0] / last[1] - 1.0).abs() < 0.1, "{last:?}");
}

/// A kill at step 3 or later, then `--resume`: every number of every step and the captions are those of
/// a run that did not stop.
#[test]
fn a_killed_lora_run_goes_on_bit_identically() {
    let experiment = experiment();
    let flags = "--set train.ema_decay=0.9 --set model.recompute_text_backbone=true";
    train(&experiment, "clean", flags);
    let mut process = experiment.start(&format!("train --config lora.toml --out killed {flags}"));
    let deadline = Instant::now() + Duration::from_secs(120);
    let checkpoint = experiment.path("killed/checkpoints/step-3/state.json");
    while !checkpoint.exists() {
        assert!(Instant::now() < deadline, "no checkpoint");
        sleep(Duration::from_millis(2));
    }
    process.kill().expect("SIGKILL");
    process.wait().expect("the process ends");
    expect_code(&experiment.blip2("train --resume killed"), 0);
    let (clean, killed) = (experiment.path("clean"), experiment.path("killed"));
    assert_eq!(metrics(&clean), metrics(&killed));
    for file in ["captions/test.json", "captions/epoch-2.json"] {
        assert_eq!(read_json(&clean.join(file)), read_json(&killed.join(file)));
    }
    for file in ["model.bpk", "average.bpk"] {
        let open = |run: &Path| {
            let path = run.join("checkpoints/step-16").join(file);
            let source = Source::open(&path).expect("a burnpack");
            let tensors = source.tensors().iter();
            let read = tensors.map(|(key, tensor)| (key.clone(), tensor.read().expect("values")));
            read.collect::<Vec<_>>()
        };
        assert_eq!(open(&clean), open(&killed), "{file}");
    }

    // With other adapters it is another run.
    let config = experiment.path("killed/config.toml");
    let text = fs::read_to_string(&config).expect("the config");
    fs::write(&config, text.replace("r = 4", "r = 2")).expect("the config");
    let lora = "model.lora.text_backbone.r";
    fails(
        &experiment,
        "train --resume killed",
        1,
        &[lora, "was 4, now it is 2"],
    );
}

#[test]
fn wrong_adapters_are_refused_and_nothing_is_lost() {
    let experiment = experiment();
    let text = "--set model.lora.text_backbone";
    for (set, code, words) in [
        (
            format!("{text}.target_modules=[\"query\"]"),
            2,
            vec!["lora.text_backbone.target_modules", "no linear layer", "q_proj (×2)"],
        ),
        (format!("{text}.target_modules=("), 2, vec!["target_modules", "regular expression"]),
        (format!("{text}.r=0"), 2, vec!["lora.text_backbone.r", "at least 1"]),
        (format!("{text}.lora_dropout=0.1"), 2, vec!["lora_dropout", "0.0"]),
        (format!("{text}.use_dora=true"), 2, vec!["use_dora"]),
        (format!("{text}.quantize=int3"), 2, vec!["quantize", "int8"]),
        (
            "--set model.text_backbone.frozen=false".into(),
            2,
            vec!["lora.text_backbone", "frozen"],
        ),
        (
            "--set model.lora={adapters_only=true}".into(),
            2,
            vec!["adapters_only", "nothing would learn"],
        ),
        (
            "--set features.cache=memory --set model.lora.vision_backbone={target_modules=[\"qkv\"],r=2,lora_alpha=2}"
                .into(),
            2,
            vec!["features.cache", "frozen"],
        ),
        (
            format!("{text}.init=peft {text}.r=2"),
            2,
            vec!["lora.text_backbone.r", "peft", "rank 4, not 2"],
        ),
        (format!("{text}.init=plain"), 1, vec!["adapter_config.json"]),
    ] {
        let run = format!("train --config lora.toml --out wrong {set}");
        fails(&experiment, &run, code, &words);
        assert!(!experiment.path("wrong/metrics.jsonl").exists(), "{set}");
        let _ = fs::remove_dir_all(experiment.path("wrong"));
    }
    let image = "--image data/images/000001.jpg";
    for (command, code, words) in [
        (
            format!("caption --model sharded --lora peft {image}"),
            1,
            vec!["q_proj", "another base"],
        ),
        (
            format!("caption --model plain --lora plain {image}"),
            1,
            vec!["adapter_config.json"],
        ),
        (
            "convert --from sharded --lora peft --merge-lora --to out".into(),
            1,
            vec!["q_proj", "another base"],
        ),
        (
            "convert --from plain --merge-lora --to out".into(),
            2,
            vec!["--lora"],
        ),
        (
            "convert --from plain --adapter --to out".into(),
            2,
            vec!["no run with LoRA adapters"],
        ),
    ] {
        fails(&experiment, &command, code, &words);
        assert!(!experiment.path("out").exists(), "{command}");
    }
    // Neither the adapter nor the models were touched: they still work together.
    captions(&experiment, "plain --lora peft");
    captions(&experiment, "sharded");
}
