//! Training on several devices, which are servers on this machine: `flex` itself is one device.

mod faults;

use std::io::{BufRead, BufReader};
use std::process::Child;

use blip2_tests::{
    CURVE, Experiment, expect_code, metrics, read_json, stdout, trained, wait_for_checkpoint,
    weights_sha256,
};
use serde_json::Value;

/// A `blip2 serve-device`, stopped at the end of the test.
pub struct Server {
    process: Child,
    /// What clients name it by.
    pub word: String,
}

impl Server {
    /// Starts one on a free port.
    pub fn start(experiment: &Experiment) -> Self {
        let mut process = experiment.start("serve-device --device flex --listen 127.0.0.1:0");
        let mut word = String::new();
        let out = process.stdout.take().expect("its stdout");
        BufReader::new(out).read_line(&mut word).expect("a line");
        let word = word.trim().to_string();
        assert!(word.starts_with("ws://127.0.0.1:"), "{word}");
        Self { process, word }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().expect("SIGKILL");
        self.process.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A field of all training steps.
fn steps(metrics: &[Value], field: &str) -> Vec<f64> {
    let steps = metrics.iter().filter(|record| record["kind"] == "train");
    steps.filter_map(|record| record[field].as_f64()).collect()
}

fn greatest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max)
}

/// Sums of half a batch run in another order than those of a whole one, and this process has operations
/// of its own on `flex` where a server has Burn's.
const TOLERANCE: f64 = 1e-5;

/// Trains `config` on one server, on two, here, and here and on a server together: the same loss in every
/// step, and the same learning rates and numbers of images. Returns the losses.
fn all_ways_are_one(experiment: &Experiment, config: &str, settings: &str) -> Vec<f64> {
    let servers = [Server::start(experiment), Server::start(experiment)];
    let [first, second] = servers.each_ref().map(|server| &server.word);
    let train = |run, devices: &str| {
        let settings = format!("{settings} --device {devices}");
        trained(experiment, config, run, &settings)
    };
    let one = train("one", first);
    let losses = steps(&one, "loss");
    for (run, devices) in [
        ("two", format!("{first},{second}")),
        ("here", "flex".to_string()),
        ("mixed", format!("flex,{second}")),
    ] {
        let metrics = train(run, &devices);
        let found = steps(&metrics, "loss");
        let worst = greatest_difference(&losses, &found);
        println!("{run}: losses differ by {worst:e} at most");
        assert!(worst <= TOLERANCE, "{run}: {worst}\n{losses:?}\n{found:?}");
        for field in ["lr", "items"] {
            assert_eq!(steps(&one, field), steps(&metrics, field), "{run}: {field}");
        }
    }
    let captions = |run| read_json(&experiment.path(run).join("captions/test.json"));
    assert_eq!(captions("one"), captions("two"));
    losses
}

/// Without dropout, whose masks are drawn on the servers for other rows; and without ReLU: where it bends,
/// a rounding can be a jump in the gradient, from which two runs go different ways.
#[test]
fn the_loss_of_every_step_is_that_of_one_device() {
    let losses = all_ways_are_one(
        &Experiment::new(),
        "debug.toml",
        "--set train.epochs=6 --set train.batch_size=5 --set schedule.lr=3e-3 \
         --set model.multimodal_backbone.hidden_dropout_prob=0.0 \
         --set model.multimodal_backbone.attention_probs_dropout_prob=0.0 \
         --set model.text_backbone.architecture.activation_function=\"gelu\"",
    );
    assert_eq!(
        losses.len(),
        42,
        "the last batch of an epoch has two images"
    );
    let mean = |epoch: &[f64]| epoch.iter().sum::<f64>() / epoch.len() as f64;
    assert!(mean(&losses[35..]) < mean(&losses[..7]), "it learns");
}

/// With accumulation, a trained image encoder with layer-wise rates, and a language model in half precision
/// that is recomputed; ten steps at a quarter of the recipe's rate, for it has ReLU.
#[test]
fn so_it_is_with_the_recipe_of_lavis() {
    let experiment = Experiment::new();
    let (twin, settings) = CURVE;
    let config = experiment.twin(twin);
    let settings = format!("{settings} --set train.epochs=1 --set schedule.lr=1e-4");
    let losses = all_ways_are_one(&experiment, &config, &settings);
    assert_eq!(losses.len(), 10);
}

/// With dropout, a frozen image encoder and an average of the weights: what a run on two devices makes
/// depends on nothing but the recipe, and a killed one goes on to the same end. Its features come from
/// memory.
#[test]
fn a_killed_run_on_two_devices_goes_on_bit_identically() {
    let experiment = Experiment::new();
    let servers = [Server::start(&experiment), Server::start(&experiment)];
    let devices = format!(
        "--set train.devices=[\"{}\",\"{}\"] --set train.ema_decay=0.9 --set features.cache=\"memory\" --set train.checkpoint_every=2",
        servers[0].word, servers[1].word
    );
    expect_code(&experiment.train("clean", &devices), 0);

    let mut process =
        experiment.start(&format!("train --config debug.toml --out killed {devices}"));
    wait_for_checkpoint(&experiment, "killed", 4);
    process.kill().expect("SIGKILL");
    process.wait().expect("the process ends");
    expect_code(&experiment.blip2("train --resume killed"), 0);
    let (clean, killed) = (experiment.path("clean"), experiment.path("killed"));
    assert_eq!(metrics(&clean), metrics(&killed));
    assert_eq!(weights_sha256(&clean, 16), weights_sha256(&killed, 16));
}

/// Captions of a model on a server are those of the model here.
#[test]
fn a_server_captions_as_this_machine_does() {
    let experiment = Experiment::new();
    expect_code(&experiment.train("run", ""), 0);
    let server = Server::start(&experiment);
    let image = std::fs::read_dir(experiment.path("data/images"))
        .expect("images")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .min()
        .expect("an image");
    let caption = format!("caption --model run --image data/images/{image} --json");
    let here = experiment.blip2(&caption);
    expect_code(&here, 0);
    let there = experiment.blip2(&format!("{caption} --device {}", server.word));
    expect_code(&there, 0);
    let ids = |output| -> Value {
        let line: Value = serde_json::from_str(stdout(output).trim()).expect("JSON");
        line["captions"][0]["token_ids"].clone()
    };
    assert!(ids(&here).is_array());
    assert_eq!(ids(&here), ids(&there));
}
