//! `inspect --plan`, and runs that do not fit in memory.

use blip2_tests::{Experiment, expect_code, fails, stderr, stdout};
use serde_json::Value;

/// A model whose weights, activations and checkpoints are hundreds of megabytes.
const LARGE: &str = "--set model.multimodal_backbone.hidden_size=512 \
                     --set model.multimodal_backbone.intermediate_size=2048 \
                     --set model.multimodal_backbone.num_hidden_layers=4 \
                     --set model.multimodal_backbone.num_query_tokens=32 \
                     --set model.text_backbone.architecture.max_position_embeddings=96 \
                     --set model.multimodal_backbone.num_attention_heads=8 \
                     --set train.batch_size=16 --set train.epochs=1 --set evaluation.val_captions=1 \
                     --set data.test=[]";

#[test]
fn a_plan_is_a_table_or_json_and_knows_its_devices() {
    let experiment = Experiment::new();
    let output = experiment.blip2("inspect --config debug.toml --plan --device-type h100 --json");
    expect_code(&output, 0);
    let text = stdout(&output);
    let plan: Value = serde_json::from_str(text.trim()).expect("JSON alone on stdout");
    assert_eq!(
        plan["run"]["steps"], 16,
        "32 images, 4 a batch, 2 epochs: {plan}"
    );
    assert!(plan["run"]["kilowatt_hours"].as_f64() > Some(0.0), "{plan}");
    assert!(plan["largest_batch"].as_u64() >= Some(32), "{plan}");
    assert_eq!(plan["texts_measured"], true);

    let output = experiment.blip2("inspect debug.toml --plan --set train.epochs=3");
    expect_code(&output, 0);
    let text = stdout(&output);
    for expected in [
        "GFLOP/s",
        "Q-Former, backward",
        "key/value cache",
        "24 steps",
        "largest",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    fails(
        &experiment,
        "inspect debug.toml --plan --device-type abacus",
        2,
        &["abacus", "h100", "rtx4090", "this"],
    );
    fails(&experiment, "inspect run --plan", 2, &["--plan", "config"]);
}

#[test]
fn what_does_not_fit_is_refused_before_it_begins() {
    let experiment = Experiment::new();
    let absurd = "--set train.batch_size=1000000000";
    let train = format!("train --config debug.toml --out run {absurd}");
    let named = [
        "training needs about",
        "batches read ahead",
        "are free",
        "train.batch_size = 32 would fit",
    ];
    fails(&experiment, &train, 1, &named);
    assert!(!experiment.path("run").exists(), "nothing was begun");
    // The batch that it names fits.
    let output = experiment.train("fitting", "--set train.batch_size=32 --set train.epochs=1");
    expect_code(&output, 0);
    // Who insists gets further: to the next check.
    fails(
        &experiment,
        &format!("{train} --ignore-memory"),
        2,
        &["has only 32 items"],
    );

    let beams = "--num-beams 30000000 --max-new-tokens 9";
    let caption = format!("caption --model fitting --image data/images/000001.jpg {beams}");
    fails(
        &experiment,
        &caption,
        1,
        &["captioning needs about", "--batch-size = 1"],
    );
}

/// The estimate against what the kernel counted; time is not compared, for the machine may be busy.
#[cfg(target_os = "linux")]
#[test]
fn the_estimate_of_memory_is_that_of_the_run_within_a_quarter() {
    let experiment = Experiment::new();
    let output = experiment.train("run", LARGE);
    expect_code(&output, 0);
    let text = stderr(&output);
    let line = text
        .lines()
        .find(|line| line.contains("memory at the peak"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    let mebibytes = |after: &str| -> f64 {
        let (_, rest) = line.split_once(after).unwrap_or_else(|| panic!("{line}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (measured, estimated) = (mebibytes("at the peak: "), mebibytes("estimated: "));
    let ratio = estimated / measured;
    assert!((0.75..1.25).contains(&ratio), "{line}");
}

/// Where the estimate is overruled and wrong, one line says so, and nothing is dumped.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_runs_out_ends_a_run_with_one_line() {
    let experiment = Experiment::new();
    let train = format!("train --config debug.toml --out run --ignore-memory {LARGE}");
    // Enough to start, not enough for the weights' gradients and moments.
    let output = experiment.limited("ulimit -v 600000", &train);
    expect_code(&output, 1);
    let text = stderr(&output);
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: out of memory"), "{text}");
    assert!(last.contains("would fit"), "{text}");
}
