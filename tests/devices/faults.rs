//! Servers that are not there, refuse or die.

use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use blip2_tests::{CURVE, Experiment, expect_code, fails, metrics, stderr, wait_for_checkpoint};

use super::{Server, steps};

const SECRET: &str = "BLIP2_DEVICE_SECRET";

/// Trains on two servers, kills one of them after the first checkpoints, and expects one line that names
/// it. Then the run goes on elsewhere to its end.
fn dies(victim: usize) {
    let experiment = Experiment::new();
    let (twin, settings) = CURVE;
    let config = experiment.twin(twin);
    let mut servers = [Server::start(&experiment), Server::start(&experiment)];
    let process = experiment.start(&format!(
        "train --config {config} --out run {settings} --set train.epochs=2 --set train.checkpoint_every=2 \
         --device {},{}",
        servers[0].word, servers[1].word
    ));
    wait_for_checkpoint(&experiment, "run", 4);
    servers[victim].kill();
    let killed = Instant::now();
    let output = process.wait_with_output().expect("it ends");
    assert!(killed.elapsed() < Duration::from_secs(60), "it hangs");
    expect_code(&output, 1);
    let text = stderr(&output);
    let errors: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 1, "{text}");
    for part in [&servers[victim].word, "is lost", "--resume "] {
        assert!(errors[0].contains(part), "`{part}` is not in: {text}");
    }
    assert!(
        !text.contains("RUST_BACKTRACE") && !text.contains("WARN"),
        "{text}"
    );

    let alive = &servers[1 - victim].word;
    expect_code(
        &experiment.blip2(&format!("train --resume run --device {alive}")),
        0,
    );
    let losses = steps(&metrics(&experiment.path("run")), "loss");
    assert_eq!(losses.len(), 20, "every step once");
    assert!(losses[19] < 0.8 * losses[0], "{losses:?}");
}

#[test]
fn a_run_ends_where_the_server_of_a_copy_dies_and_goes_on() {
    dies(1);
}

#[test]
fn a_run_ends_where_the_server_of_the_model_dies_and_goes_on() {
    dies(0);
}

#[test]
fn a_server_that_is_not_there_is_one_line() {
    let experiment = Experiment::new();
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let word = format!("ws://127.0.0.1:{port}");
    let train = format!("train --config debug.toml --out run --device {word}");
    fails(&experiment, &train, 1, &[&word, "is the server running?"]);
    assert!(!experiment.path("run").exists());
}

#[test]
fn a_server_with_a_secret_refuses_who_does_not_know_it() {
    let mut experiment = Experiment::new();
    experiment.set_env(SECRET, "right");
    let server = Server::start(&experiment);
    let train = format!(
        "train --config debug.toml --out run --set train.epochs=1 --device {}",
        server.word
    );
    for secret in ["wrong", ""] {
        experiment.set_env(SECRET, secret);
        fails(&experiment, &train, 1, &[&server.word, SECRET]);
        assert!(!experiment.path("run").exists());
    }
    experiment.set_env(SECRET, "right");
    expect_code(&experiment.blip2(&train), 0);
}

#[test]
fn an_address_for_all_needs_a_secret() {
    let mut experiment = Experiment::new();
    let serve = "serve-device --listen 0.0.0.0:0";
    fails(&experiment, serve, 2, &["0.0.0.0:0", SECRET]);
    experiment.set_env(SECRET, "right");
    let mut process = experiment.start(serve);
    sleep(Duration::from_millis(500));
    let ended = process.try_wait().expect("its state");
    let _ = process.kill();
    process.wait().expect("it ends");
    assert_eq!(ended, None, "it serves");
}

#[test]
fn devices_that_make_no_sense_are_usage_errors() {
    let experiment = Experiment::new();
    let server = Server::start(&experiment);
    let second = format!("{}/1", server.word);
    let both = format!("flex,{}", server.word);
    for (device, expected) in [
        ("flex,flex", "same"),
        ("flex,", "no backend"),
        ("ws://127.0.0.1", "port"),
        (&second, "has 1 devices"),
    ] {
        let train = format!("train --config debug.toml --out run --device {device}");
        fails(&experiment, &train, 2, &[expected]);
    }
    let train = format!("train --config debug.toml --out run --device {both}");
    let small = format!("{train} --set train.batch_size=1");
    fails(&experiment, &small, 2, &["train.batch_size", "2 devices"]);
    let caption = format!("caption --model run --image x.png --device {both}");
    fails(&experiment, &caption, 2, &["2 devices", "train"]);
    let stage1 = experiment.twin("pretrain_stage1");
    let stage1 = format!("train --config {stage1} --out run --device {both}");
    fails(&experiment, &stage1, 2, &["one device", "contrast"]);
    let serve = format!("serve-device --device {}", server.word);
    fails(&experiment, &serve, 2, &[&server.word]);
    assert!(!experiment.path("run").exists());
}
