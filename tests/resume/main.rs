//! Runs that stop, and go on as if they had not.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Instant;

use blip2_tests::{
    Experiment, expect_code, fails, metrics, read_json, stderr, wait_for_checkpoint, weights_sha256,
};

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
    let (mut kills, mut last_step) = (0, 0);
    while kills < 20 {
        let mut process = experiment.start(&next(&experiment, &config));
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // On average a quarter of the run: it starts, goes on from its checkpoint, and all of it is met.
        sleep(whole.mul_f64(f64::from(random >> 8) / f64::from(1 << 24) / 2.0));
        let ended = process.try_wait().expect("its state");
        process.kill().expect("SIGKILL");
        process.wait().expect("the process ends");
        match ended {
            Some(status) => {
                assert!(status.success());
                assert_same_end(&experiment);
                fs::remove_dir_all(experiment.path("killed")).expect("room for another round");
            }
            None => {
                kills += 1;
                last_step = last_step.max(steps_done(&experiment.path("killed")));
            }
        }
    }
    println!("20 kills, the latest after step {last_step} of 50");
    assert!(last_step > 10, "the kills met its start alone");
    expect_code(&experiment.blip2(&next(&experiment, &config)), 0);
    assert_same_end(&experiment);
}

/// Starts the run that is killed, or goes on with it.
fn next(experiment: &Experiment, config: &str) -> String {
    match experiment.path("killed/config.toml").exists() {
        true => "train --resume killed".to_string(),
        false => format!("train --config {config} --out killed"),
    }
}

/// The steps that a run's metrics have.
fn steps_done(run: &Path) -> usize {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.matches("\"kind\":\"train\"").count()
}

/// The runs `clean` and `killed` have the same metrics, weights and captions.
fn assert_same_end(experiment: &Experiment) {
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

/// Ctrl-C, a scheduler's SIGTERM, the SIGHUP of a lost connection.
#[test]
fn signals_save_and_exit_with_130() {
    let experiment = Experiment::new();
    for name in ["INT", "TERM", "HUP"] {
        // More epochs than it can do before the signal.
        let process = experiment.start(&format!(
            "train --config debug.toml --out {name} --set train.epochs=500"
        ));
        wait_for_checkpoint(&experiment, name, 6);
        signal(process.id(), &format!("-{name}"));
        let output = process.wait_with_output().expect("the process ends");
        expect_code(&output, 130);
        assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
        let last = metrics(&experiment.path(name))
            .iter()
            .filter_map(|record| record["step"].as_u64())
            .max()
            .expect("a step");
        let state = format!("{name}/checkpoints/step-{last}/state.json");
        assert!(
            experiment.path(&state).exists(),
            "{name}: the last step {last} is saved"
        );
    }
}

/// A kill between the two renames of a checkpoint that is written again: the old one is put back, and
/// half of a new one is cleared away.
#[test]
fn a_checkpoint_that_was_put_aside_is_used() {
    let experiment = Experiment::new();
    expect_code(&experiment.train("run", ""), 0);
    let checkpoints = experiment.path("run/checkpoints");
    fs::rename(
        checkpoints.join("step-16"),
        checkpoints.join(".step-16.old"),
    )
    .expect("aside");
    fs::create_dir(checkpoints.join(".step-17.tmp")).expect("half a checkpoint");
    let output = experiment.blip2("train --resume run");
    expect_code(&output, 0);
    let text = stderr(&output);
    assert!(text.contains("going on after step 16"), "{text}");
    assert!(checkpoints.join("step-16/state.json").exists());
    assert!(!checkpoints.join(".step-17.tmp").exists());
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
    for expected in [
        "model.bpk is damaged",
        "step-16",
        "the checkpoint of step 15",
        "going on after step 15",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
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
