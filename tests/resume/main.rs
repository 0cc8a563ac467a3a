//! Runs that stop, and go on as if they had not.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use blip2::checkpoint::Source;
use blip2_tests::{Experiment, expect_code, fails, metrics, read_json, stderr};
use blip2_train::hash::sha256;

/// Waits until a checkpoint of step `step` or later is there.
fn wait_for_checkpoint(experiment: &Experiment, run: &str, step: usize) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let folder = experiment.path(run).join("checkpoints");
    loop {
        let newest = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_prefix("step-")?
                    .parse()
                    .ok()
            })
            .max()
            .unwrap_or(0);
        if newest >= step {
            return;
        }
        assert!(Instant::now() < deadline, "no checkpoint of step {step}");
        sleep(Duration::from_millis(5));
    }
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([name, &process.to_string()])
        .status();
    assert!(status.is_ok_and(|status| status.success()));
}

/// A run that was killed at step 3 or later of 16, resumed, equals one that was not: every number
/// of every step, the trained weights, the captions.
#[test]
fn a_killed_run_goes_on_bit_identically() {
    let experiment = Experiment::new();
    expect_code(&experiment.train("clean", ""), 0);

    let mut process = experiment.start("train --config debug.toml --out killed");
    wait_for_checkpoint(&experiment, "killed", 3);
    process.kill().expect("SIGKILL");
    process.wait().expect("the process ends");
    expect_code(&experiment.blip2("train --resume killed"), 0);

    let (clean, killed) = (experiment.path("clean"), experiment.path("killed"));
    assert_eq!(metrics(&clean), metrics(&killed));
    assert_eq!(
        metrics(&clean).len(),
        16 + 2,
        "8 steps and a validation in each epoch"
    );
    for file in ["captions/test.json", "captions/epoch-2.json"] {
        assert_eq!(
            read_json(&clean.join(file)),
            read_json(&killed.join(file)),
            "{file}"
        );
    }
    let state = |run: &std::path::Path| read_json(&run.join("checkpoints/step-16/state.json"));
    assert_eq!(state(&clean)["best"], state(&killed)["best"]);
}

/// SHA-256 over the names and values of all trained weights of a checkpoint. (Its file holds random
/// parameter ids too.)
fn weights_sha256(run: &Path, step: usize) -> String {
    let model = run.join(format!("checkpoints/step-{step}/model.bpk"));
    let mut all = Vec::new();
    for (name, tensor) in Source::open(&model).expect("a burnpack").tensors() {
        all.extend(name.bytes());
        all.extend(tensor.read().expect("its values"));
    }
    assert!(!all.is_empty());
    sha256(&all)
}

/// Twenty SIGKILLs at random moments (while it starts, steps, validates, writes a checkpoint) end in
/// what one clean run ends in, bit for bit: weights, metrics, captions.
#[test]
fn twenty_random_kills_end_in_the_same_weights() {
    let experiment = Experiment::new();
    let config = experiment.twin("caption_coco_opt2.7b");
    let started = Instant::now();
    expect_code(
        &experiment.blip2(&format!("train --config {config} --out clean")),
        0,
    );
    let whole = started.elapsed();

    // The moments differ from run to run of this test; what comes out must not.
    let mut random = std::process::id();
    let (mut kills, mut finished) = (0, false);
    while kills < 20 {
        let resume = experiment.path("killed/config.toml").exists();
        let mut process = experiment.start(&match resume {
            true => "train --resume killed".to_string(),
            false => format!("train --config {config} --out killed"),
        });
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // On average a sixteenth of the run, so that all of it is met.
        sleep(whole.mul_f64(f64::from(random >> 8) / f64::from(1 << 24) / 8.0));
        let ended = process.try_wait().expect("its state");
        process.kill().expect("SIGKILL");
        process.wait().expect("the process ends");
        match ended {
            Some(status) => {
                assert!(status.success());
                finished = true;
                fs::remove_dir_all(experiment.path("killed")).expect("room for another round");
            }
            None => kills += 1,
        }
    }
    println!(
        "20 kills{}",
        if finished {
            ", in more than one run"
        } else {
            ""
        }
    );
    let last = match experiment.path("killed/config.toml").exists() {
        true => "train --resume killed".to_string(),
        false => format!("train --config {config} --out killed"),
    };
    expect_code(&experiment.blip2(&last), 0);

    let (clean, killed) = (experiment.path("clean"), experiment.path("killed"));
    let (expected, found) = (metrics(&clean), metrics(&killed));
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found);
    }
    assert_eq!(expected.len(), found.len());
    assert_eq!(weights_sha256(&clean, 50), weights_sha256(&killed, 50));
    let captions = |run: &Path| read_json(&run.join("captions/test.json"));
    assert_eq!(captions(&clean), captions(&killed));
}

#[test]
fn ctrl_c_saves_and_exits_with_130() {
    let experiment = Experiment::new();
    // More epochs than it can do before the signal.
    let process = experiment.start("train --config debug.toml --out run --set train.epochs=500");
    wait_for_checkpoint(&experiment, "run", 6);
    signal(process.id(), "-INT");
    let output = process.wait_with_output().expect("the process ends");
    expect_code(&output, 130);
    assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
    let last = metrics(&experiment.path("run"))
        .iter()
        .filter_map(|record| record["step"].as_u64())
        .max()
        .expect("a step");
    assert!(
        experiment
            .path(&format!("run/checkpoints/step-{last}/state.json"))
            .exists(),
        "the last step {last} is saved"
    );
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_warning() {
    let experiment = Experiment::new();
    expect_code(&experiment.train("run", ""), 0);
    let last = experiment.path("run/checkpoints/step-16/model.bpk");
    let bytes = fs::read(&last).expect("the last checkpoint");
    fs::write(&last, &bytes[..bytes.len() / 2]).expect("damage");
    let output = experiment.blip2("train --resume run");
    expect_code(&output, 0);
    let text = stderr(&output);
    assert!(
        text.contains("model.bpk is damaged") && text.contains("step-16"),
        "{text}"
    );
    assert_eq!(fs::read(&last).expect("made again").len(), bytes.len());
}

/// With no whole checkpoint left, nothing is begun anew over what is there.
#[test]
fn a_run_with_damaged_checkpoints_alone_is_not_overwritten() {
    let experiment = Experiment::new();
    expect_code(&experiment.train("run", ""), 0);
    let before = metrics(&experiment.path("run"));
    for entry in fs::read_dir(experiment.path("run/checkpoints")).expect("checkpoints") {
        let state = entry.expect("an entry").path().join("state.json");
        fs::write(state, "{}").expect("damage");
    }
    fails(
        &experiment,
        "train --resume run",
        1,
        &["checkpoints/step-", "state.json"],
    );
    assert_eq!(metrics(&experiment.path("run")), before);
}
