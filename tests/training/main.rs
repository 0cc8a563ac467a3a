//! How a run learns: groups, schedules, averages, what is not finite, what is looked at.

mod curve;

use std::fs;
use std::path::{Path, PathBuf};

use blip2::checkpoint::Source;
use blip2_tests::{Experiment, expect_code, fails, metrics, read_json, stderr, trained};
use serde_json::Value;

fn train(experiment: &Experiment, run: &str, arguments: &str) -> Vec<Value> {
    trained(experiment, "debug.toml", run, arguments)
}

/// The values of `field` in the lines of `kind`.
fn values(metrics: &[Value], kind: &str, field: &str) -> Vec<f64> {
    let lines = metrics.iter().filter(|line| line["kind"] == kind);
    lines.filter_map(|line| line[field].as_f64()).collect()
}

/// A cache with a NaN in the features of its first image.
struct Broken {
    cache: PathBuf,
    whole: Vec<u8>,
}

impl Broken {
    fn mend(self) {
        fs::write(self.cache, self.whole).expect("the cache as it was");
    }
}

/// Writes a NaN into the cache of the train split.
fn break_features(folder: &Path) -> Broken {
    let cache = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.to_string_lossy().contains("train-"))
        .expect("the train split's cache");
    let whole = fs::read(&cache).expect("the cache");
    let mut broken = whole.clone();
    let header = u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    broken[8 + header..12 + header].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&cache, broken).expect("to write");
    Broken { cache, whole }
}

const CACHED: &str = "--set features.cache=disk --set features.folder=cache";

#[test]
fn a_step_that_is_not_finite_is_left_out_and_named() {
    let experiment = Experiment::new();
    train(&experiment, "whole", CACHED);
    break_features(&experiment.path("cache"));
    let metrics = train(&experiment, "broken", CACHED);
    let skipped: Vec<&Value> = metrics
        .iter()
        .filter(|line| line["kind"] == "skipped")
        .collect();
    assert_eq!(skipped.len(), 2, "one step of each epoch has that image");
    assert_eq!(skipped[0]["tensor"], "image_embeds");
    assert_eq!(
        values(&metrics, "train", "loss").len(),
        14,
        "the other steps of 16"
    );
    assert!(
        values(&metrics, "valid", "loss")
            .iter()
            .all(|loss| loss.is_finite())
    );
    let report = fs::read_to_string(experiment.path("broken/report.html")).expect("a report");
    assert!(report.contains("Steps left out") && report.contains("image_embeds"));
}

/// The run ends with the checkpoint before; mended, it goes on as if nothing had been.
#[test]
fn steps_that_stay_broken_end_the_run_and_keep_the_last_good_checkpoint() {
    let experiment = Experiment::new();
    let set = format!("{CACHED} --set train.max_non_finite=1 --set train.checkpoint_every=1");
    let whole = train(&experiment, "whole", &set);
    let cache = break_features(&experiment.path("cache"));
    let run = format!("train --config debug.toml --out run {set}");
    fails(
        &experiment,
        &run,
        1,
        &["1 steps in a row", "image_embeds", "schedule.lr"],
    );
    cache.mend();
    expect_code(&experiment.blip2("train --resume run"), 0);
    assert_eq!(metrics(&experiment.path("run")), whole);
}

/// Weights that are not finite are never saved over good ones.
#[test]
fn weights_that_are_not_finite_are_not_saved() {
    let experiment = Experiment::new();
    let set = "--set schedule.lr=1e38 --set schedule.warmup_lr=1e-3 --set schedule.warmup_steps=4 \
               --set train.max_non_finite=100 --set train.checkpoint_every=1";
    let output = experiment.train("run", set);
    assert_ne!(output.status.code(), Some(0));
    let text = stderr(&output);
    assert!(
        text.contains("is left out") && !text.contains("panicked"),
        "{text}"
    );
    let checkpoints = experiment.path("run/checkpoints");
    let mut read = 0;
    for entry in fs::read_dir(checkpoints).expect("checkpoints") {
        let model = entry.expect("an entry").path().join("model.bpk");
        let weights = Source::open(&model).expect("a burnpack");
        for tensor in weights.tensors().values() {
            let bytes = tensor.read().expect("its values");
            let finite = bytes
                .chunks_exact(4)
                .all(|value| f32::from_le_bytes(value.try_into().unwrap()).is_finite());
            assert!(finite, "{tensor:?}");
            read += 1;
        }
    }
    assert!(read > 0);
}

#[test]
fn the_average_is_what_is_validated_and_captioned() {
    let experiment = Experiment::new();
    // A language model that learns too, so that 16 steps change much.
    let learn = "--set model.text_backbone.frozen=false";
    let plain = train(&experiment, "plain", learn);
    // An average that forgets at once is the weights themselves.
    let average = |run, decay| {
        let set = format!("{learn} --set train.ema_decay={decay}");
        train(&experiment, run, &set)
    };
    let at_once = average("at-once", 1e-9);
    let losses = |metrics: &[Value], kind| values(metrics, kind, "loss");
    for (plain, average) in losses(&plain, "valid")
        .iter()
        .zip(losses(&at_once, "valid"))
    {
        assert!((plain - average).abs() < 1e-6, "{plain}, {average}");
    }
    // One that hardly moves stays at the first weights, while these learn as ever.
    let still = average("still", 0.9999);
    assert_eq!(losses(&plain, "train"), losses(&still, "train"));
    let (first, last) = (losses(&plain, "valid"), losses(&still, "valid"));
    assert!(
        last[1] > first[1] + 0.1,
        "{last:?} is the loss of an untrained model"
    );
    let evaluate = "evaluate --model still --annotations data/annotations/captions_val.json \
                    --images data/images --loss-only --json";
    let output = experiment.blip2(evaluate);
    expect_code(&output, 0);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = found["loss"].as_f64().expect("a loss");
    assert!(
        (found - last[1]).abs() < 0.2,
        "{found}: of all captions, {last:?} of the first"
    );
    assert!(found > first[1] + 0.1, "{found}");
}

#[test]
fn an_average_survives_a_resume() {
    let experiment = Experiment::new();
    let set = "--set train.ema_decay=0.9";
    let whole = train(&experiment, "whole", set);
    train(&experiment, "resumed", set);
    // Back to the middle of the second epoch.
    fs::remove_dir_all(experiment.path("resumed/checkpoints/step-16")).expect("the last");
    expect_code(&experiment.blip2("train --resume resumed"), 0);
    assert_eq!(whole, metrics(&experiment.path("resumed")));
}

#[test]
fn schedules_follow_their_config() {
    let experiment = Experiment::new();
    let rates = |run, set: &str| values(&train(&experiment, run, set), "train", "lr");
    let no_warmup = "--set schedule.warmup_steps=0 --set schedule.lr=0.01";
    let step = format!("{no_warmup} --set schedule.kind=step --set schedule.decay_rate=0.5");
    assert_eq!(rates("step", &step), [[0.01; 8], [0.005; 8]].concat());
    let epochs = format!("{no_warmup} --set schedule.per_epoch=true --set schedule.min_lr=0.0");
    let found = rates("epochs", &epochs);
    assert_eq!(found[..8], [0.01; 8]);
    assert!(
        (found[8] - 0.005).abs() < 1e-9,
        "half a cosine of two epochs: {}",
        found[8]
    );
    let wrong = "train --config debug.toml --out wrong --set schedule.kind=step";
    fails(&experiment, wrong, 2, &["schedule.decay_rate"]);
}

/// With a trained image encoder and hardly any rate left for its first layers, only they change
/// the run.
#[test]
fn layers_of_a_trained_encoder_learn_at_their_own_rates() {
    let experiment = Experiment::new();
    let run = |name, set: &str| {
        let trained = "--set model.vision_backbone.frozen=false --set schedule.lr=1e-3";
        values(
            &train(&experiment, name, &format!("{trained} {set}")),
            "train",
            "loss",
        )
    };
    let (whole, slow) = (
        run("whole", ""),
        run("slow", "--set optimizer.lr_layer_decay=0.1"),
    );
    assert_eq!(whole[0], slow[0], "the first step has learned nothing yet");
    assert_ne!(whole, slow);
    let frozen = |decay: &str| {
        let set = format!("--set optimizer.lr_layer_decay={decay}");
        values(
            &train(&experiment, &format!("frozen-{decay}"), &set),
            "train",
            "loss",
        )
    };
    assert_eq!(
        frozen("1.0"),
        frozen("0.1"),
        "a frozen encoder has no rates"
    );
}

#[test]
fn sample_captions_and_chosen_scores_are_in_metrics_and_report() {
    let experiment = Experiment::new();
    let set = "--set evaluation.sample_captions=2 --set evaluation.sample_every=5 \
               --set evaluation.val_metrics=[\"BLEU\",\"CIDEr\"] --set train.tensorboard=true";
    let metrics = train(&experiment, "run", set);
    let events: Vec<Vec<u8>> = fs::read_dir(experiment.path("run/tensorboard"))
        .expect("event files")
        .map(|entry| fs::read(entry.expect("an entry").path()).expect("an event file"))
        .collect();
    let count = |tag: &[u8]| {
        events[0]
            .windows(tag.len())
            .filter(|found| *found == tag)
            .count()
    };
    assert_eq!((count(b"train/loss"), count(b"val/Bleu_4")), (16, 2));
    let samples: Vec<&Value> = metrics
        .iter()
        .filter(|line| line["kind"] == "samples")
        .collect();
    let steps: Vec<u64> = samples
        .iter()
        .filter_map(|line| line["step"].as_u64())
        .collect();
    assert_eq!(steps, [5, 10, 15]);
    assert_eq!(
        samples[0]["captions"].as_object().expect("captions").len(),
        2
    );
    let valid = metrics
        .iter()
        .find(|line| line["kind"] == "valid")
        .expect("a validation");
    let scores = valid["scores"].as_object().expect("scores");
    assert!(
        scores.contains_key("Bleu_4") && scores.contains_key("CIDEr"),
        "{scores:?}"
    );
    assert_eq!(scores["CIDEr"], valid["score"]);
    let report = fs::read_to_string(experiment.path("run/report.html")).expect("a report");
    assert!(report.contains("Sample captions"));
    let wrong = "train --config debug.toml --out wrong --set evaluation.val_metrics=[\"BLEU\"]";
    fails(&experiment, wrong, 2, &["val_metrics", "CIDEr"]);
}

#[test]
fn the_best_checkpoints_are_kept_by_score() {
    let experiment = Experiment::new();
    let set = "--set train.epochs=5 --set train.keep_best=2 --set train.keep_last=1";
    let metrics = train(&experiment, "run", set);
    let mut scored: Vec<(f64, u64)> = metrics
        .iter()
        .filter(|line| line["kind"] == "valid")
        .map(|line| {
            (
                line["score"].as_f64().unwrap(),
                line["step"].as_u64().unwrap(),
            )
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut expected = vec![scored[0].1, scored[1].1, 40];
    expected.sort_unstable();
    expected.dedup();
    let mut kept: Vec<u64> = fs::read_dir(experiment.path("run/checkpoints"))
        .expect("checkpoints")
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix("step-")?.parse().ok()
        })
        .collect();
    kept.sort_unstable();
    assert_eq!(kept, expected);
    let best = read_json(&experiment.path("run/scores.json"))["checkpoint_step"].clone();
    assert_eq!(best.as_u64(), Some(scored[0].1));
}

#[test]
fn a_batch_is_at_most_the_data() {
    let experiment = Experiment::new();
    for set in [
        "train.batch_size=33",
        "train.batch_size=40 --set train.drop_last=true",
    ] {
        let run = format!(
            "train --config debug.toml --out run-{} --set {set}",
            set.len()
        );
        fails(&experiment, &run, 2, &["train.batch_size", "32"]);
    }
    let dropped = train(
        &experiment,
        "drop",
        "--set train.batch_size=5 --set train.drop_last=true",
    );
    assert!(
        values(&dropped, "train", "items")
            .iter()
            .all(|&items| items == 5.0)
    );
    assert_eq!(values(&dropped, "train", "items").len(), 12);
}

/// Going on with something else than what the checkpoint belongs to is refused, and nothing is
/// lost: put back, the run goes on.
#[test]
fn a_checkpoint_of_another_config_or_data_set_is_refused() {
    let experiment = Experiment::new();
    let whole = train(&experiment, "run", "");
    let last = experiment.path("run/checkpoints/step-16");
    fs::remove_dir_all(last).expect("the last checkpoint");
    let resume = "train --resume run";

    let config = experiment.path("run/config.toml");
    let text = fs::read_to_string(&config).expect("the config");
    fs::write(
        &config,
        text.replace("weight_decay = 0.05", "weight_decay = 0.5"),
    )
    .expect("a change");
    let expected = ["step-15", "optimizer.weight_decay", "0.05", "0.5"];
    fails(&experiment, resume, 1, &expected);
    // What changes no weight may change.
    fs::write(&config, text.replace("num_workers = 2", "num_workers = 1")).expect("the config");

    let annotations = experiment.path("data/annotations/captions_train.json");
    let captions = fs::read_to_string(&annotations).expect("captions");
    fs::write(
        &annotations,
        captions.replacen("\"caption\":\"a", "\"caption\":\"one", 1),
    )
    .expect("a change");
    fails(&experiment, resume, 1, &["train captions"]);
    fs::write(&annotations, captions).expect("as before");

    // Another image of the same size in bytes.
    let image = experiment.path("data/images/000002.png");
    let bytes = fs::read(&image).expect("an image");
    let mut other = bytes.clone();
    let middle = other.len() / 2;
    other[middle] ^= 1;
    fs::write(&image, other).expect("a change");
    fails(&experiment, resume, 1, &["train images"]);
    fs::write(&image, bytes).expect("as before");

    let output = experiment.blip2(resume);
    expect_code(&output, 0);
    assert!(!stderr(&output).contains("damaged"));
    assert_eq!(metrics(&experiment.path("run")), whole);
}

#[test]
fn an_empty_split_is_named() {
    let experiment = Experiment::new();
    fs::write(experiment.path("empty.jsonl"), "").expect("a file");
    for split in ["train", "val"] {
        let set = format!("data.{split}.annotations=empty.jsonl");
        let run = format!("train --config debug.toml --out {split} --set {set}");
        let output = experiment.blip2(&run);
        assert_ne!(output.status.code(), Some(0));
        assert!(
            stderr(&output).contains("empty.jsonl"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn frozen_towers_may_be_kept_in_fewer_bits() {
    let experiment = Experiment::new();
    let full = values(&train(&experiment, "f32", ""), "train", "loss");
    for dtype in ["f16", "bf16"] {
        let set = format!(
            "--set model.vision_backbone.dtype={dtype} --set model.text_backbone.dtype={dtype}"
        );
        let half = values(&train(&experiment, dtype, &set), "train", "loss");
        assert_ne!(full, half, "{dtype}: weights are rounded");
        for (full, half) in full.iter().zip(half) {
            // bf16 keeps 8 bits of each weight.
            assert!((full - half).abs() < 0.01 * full, "{dtype}: {half}, {full}");
        }
    }
    for (dtype, tolerance) in [("int8", 0.01), ("int4", 0.05)] {
        let set = format!(
            "--set model.vision_backbone.dtype={dtype} --set model.text_backbone.dtype={dtype}"
        );
        let rounded = values(&train(&experiment, dtype, &set), "train", "loss");
        assert_ne!(full, rounded, "{dtype}: weights are rounded");
        for (full, rounded) in full.iter().zip(rounded) {
            let error = (full - rounded).abs();
            assert!(error < tolerance * full, "{dtype}: {rounded}, {full}");
        }
    }
    let twice = "train --config debug.toml --out twice --set model.text_backbone.dtype=int4 \
                 --set model.lora.text_backbone.r=2 --set model.lora.text_backbone.lora_alpha=2 \
                 --set model.lora.text_backbone.target_modules=[\"q_proj\"] \
                 --set model.lora.text_backbone.quantize=int8";
    fails(
        &experiment,
        twice,
        2,
        &["lora.text_backbone.quantize", "model.text_backbone.dtype"],
    );
    let trained = "train --config debug.toml --out trained --set model.vision_backbone.dtype=bf16 \
                   --set model.vision_backbone.frozen=false";
    fails(&experiment, trained, 2, &["vision_backbone.dtype", "f32"]);
}

/// Towers that multiply in bfloat16 round where the processor has such products, and train alike.
#[test]
fn towers_may_multiply_in_bfloat16() {
    let experiment = Experiment::new();
    let full = values(&train(&experiment, "f32", ""), "train", "loss");
    let set = "--set model.vision_backbone.compute=bf16 --set model.text_backbone.compute=bf16";
    let rounded = values(&train(&experiment, "bf16", set), "train", "loss");
    for (full, rounded) in full.iter().zip(rounded) {
        // bf16 keeps 8 bits of each number.
        assert!((full - rounded).abs() < 0.02 * full, "{rounded}, {full}");
    }
}

/// The language model's graph is made layer by layer: the same numbers to the bit.
#[test]
fn a_recomputed_language_model_trains_alike() {
    let experiment = Experiment::new();
    let whole = values(&train(&experiment, "whole", ""), "train", "loss");
    let set = "--set model.recompute_text_backbone=true";
    let recomputed = values(&train(&experiment, "recomputed", set), "train", "loss");
    assert_eq!(whole, recomputed);
}

/// Blocks of an image encoder that learns, with stochastic depth off: the same to the bit, as long as the
/// optimizer sees the same gradients.
#[test]
fn a_recomputed_image_encoder_trains_alike() {
    let experiment = Experiment::new();
    let trained = "--set model.vision_backbone.frozen=false --set train.accumulation=2 \
                   --set optimizer.lr_layer_decay=0.9 --set train.ema_decay=0.9";
    let whole = values(&train(&experiment, "whole", trained), "train", "loss");
    let both = format!(
        "{trained} --set model.recompute_vision_backbone=true \
         --set model.recompute_text_backbone=true"
    );
    let recomputed = values(&train(&experiment, "recomputed", &both), "train", "loss");
    assert_eq!(whole, recomputed);
    fails(
        &experiment,
        "train --config debug.toml --out frozen --set model.recompute_vision_backbone=true",
        2,
        &[
            "recompute_vision_backbone",
            "vision_backbone.frozen = false",
        ],
    );
}
