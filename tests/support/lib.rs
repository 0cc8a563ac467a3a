//! A debug-sized experiment in a temporary folder, and `blip2` run on it.

pub mod hub_server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use blip2::checkpoint::Source;
use blip2_data::emoji_scenes::{self, EmojiScenesConfig};
use blip2_data::tokenizer::train_bpe;
use blip2_train::hash::sha256;
use serde_json::Value;

/// The config of the experiment: the default's recipe with towers of a few thousand weights.
const CONFIG: &str = include_str!("debug.toml");

/// The training whose losses PyTorch gave as well (`tests/reference/curve.py`): a twin without
/// dropout, whose masks no two libraries draw alike.
pub const CURVE: (&str, &str) = (
    "caption_coco_opt2.7b",
    "--set model.multimodal_backbone.hidden_dropout_prob=0.0 \
     --set model.multimodal_backbone.attention_probs_dropout_prob=0.0",
);

/// A temporary folder with data, tokenizer and config; removed at the end of the test.
pub struct Experiment {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Default for Experiment {
    fn default() -> Self {
        Self::new()
    }
}

impl Experiment {
    /// Makes a few dozen scenes, a tokenizer on their captions, and `debug.toml`.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let scenes = EmojiScenesConfig {
            seed: 11,
            train: 32,
            val: 8,
            test: 8,
            test_seen: 4,
        };
        let data = folder.path().join("data");
        emoji_scenes::write(&data, &scenes, &|_, _| {}).expect("a small data set");
        let captions = read_json(&data.join("annotations/captions_train.json"));
        let texts: Vec<&str> = captions["annotations"]
            .as_array()
            .expect("annotations")
            .iter()
            .filter_map(|annotation| annotation["caption"].as_str())
            .collect();
        train_bpe(texts.into_iter(), 320)
            .and_then(|tokenizer| tokenizer.save(&folder.path().join("tokenizer")))
            .expect("a small tokenizer");
        fs::write(folder.path().join("debug.toml"), CONFIG).expect("the config");
        // Nothing here may depend on a network.
        let variables = vec![("HF_HUB_OFFLINE", "1".to_string())];
        Self { folder, variables }
    }

    /// Copies a recipe of `configs/debug/` to where its paths lead to this experiment's data and to
    /// the shipped towers. Returns its path.
    pub fn twin(&self, name: &str) -> String {
        let configs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs"));
        let text = fs::read_to_string(configs.join(format!("debug/{name}.toml")))
            .unwrap_or_else(|error| panic!("the twin {name}: {error}"));
        // The whole data set would be made.
        let text: String = text
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("emoji_scenes"))
            .collect();
        let towers = fs::canonicalize(configs.join("emoji-scenes/towers")).expect("the towers");
        let text = text
            .replace("../emoji-scenes/towers", &towers.display().to_string())
            .replace("../../datasets/emoji-scenes", "data");
        fs::write(self.path(&format!("{name}.toml")), text).expect("the twin");
        format!("{name}.toml")
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets an environment variable of the commands from here on.
    pub fn set_env(&mut self, name: &'static str, value: &str) {
        self.variables.push((name, value.to_string()));
    }

    /// `blip2 train` with the debug config, `arguments` (separated by spaces) and `--out run`.
    pub fn train(&self, run: &str, arguments: &str) -> Output {
        self.blip2(&format!(
            "train --config debug.toml --out {run} {arguments}"
        ))
    }

    /// Runs `blip2` in the folder; `arguments` are separated by spaces.
    pub fn blip2(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("blip2 starts")
    }

    /// Runs `blip2` in the folder behind `limits`, a line of shell.
    pub fn limited(&self, limits: &str, arguments: &str) -> Output {
        Command::new("bash")
            .args(["-c", &format!("{limits}; exec \"$0\" {arguments}")])
            .arg(binary())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("bash starts")
    }

    /// Starts `blip2` in the folder.
    pub fn start(&self, arguments: &str) -> Child {
        self.command(arguments).spawn().expect("blip2 starts")
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments.split_whitespace())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// `target/release/blip2-under-test`: tests lie in `target/release/deps`.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the test's path");
    let folder = test.ancestors().nth(2).expect("the build folder");
    folder.join(format!("blip2-under-test{}", std::env::consts::EXE_SUFFIX))
}

/// The text of stdout.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The text of stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The exit code; fails the test with all output if it is not `expected`.
pub fn expect_code(output: &Output, expected: i32) {
    assert_eq!(
        output.status.code(),
        Some(expected),
        "stdout:\n{}\nstderr:\n{}",
        stdout(output),
        stderr(output)
    );
    assert!(!stderr(output).contains("panicked"), "{}", stderr(output));
}

/// Trains `config` as `run`, which must succeed; returns its [`metrics`].
pub fn trained(experiment: &Experiment, config: &str, run: &str, arguments: &str) -> Vec<Value> {
    let train = format!("train --config {config} --out {run} {arguments}");
    expect_code(&experiment.blip2(&train), 0);
    metrics(&experiment.path(run))
}

/// Fails the test unless the command ends with `code`, and one line on stderr names everything in
/// `expected`.
pub fn fails(experiment: &Experiment, arguments: &str, code: i32, expected: &[&str]) {
    let output = experiment.blip2(arguments);
    expect_code(&output, code);
    let text = stderr(&output);
    let error = text
        .lines()
        .find(|line| line.starts_with("error: "))
        .unwrap_or_else(|| panic!("no error line: {text}"));
    for part in expected {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert!(
        !text.contains("RUST_BACKTRACE") && !text.contains("stack backtrace"),
        "{text}"
    );
}

/// Reads a JSON file.
pub fn read_json(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a run's `metrics.jsonl`, without what depends on the clock.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
    text.lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).expect("a JSON line");
            for field in ["items_per_s", "seconds"] {
                if let Some(record) = record.as_object_mut() {
                    record.remove(field);
                }
            }
            record
        })
        .collect()
}

/// Waits until a checkpoint of step `step` or later is there.
pub fn wait_for_checkpoint(experiment: &Experiment, run: &str, step: usize) {
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

/// SHA-256 over the names and values of all trained weights of a checkpoint. (Its file holds random
/// parameter ids too.)
pub fn weights_sha256(run: &Path, step: usize) -> String {
    let model = run.join(format!("checkpoints/step-{step}/model.bpk"));
    let mut all = Vec::new();
    for (name, tensor) in Source::open(&model).expect("a burnpack").tensors() {
        all.extend(name.bytes());
        all.extend(tensor.read().expect("its values"));
    }
    assert!(!all.is_empty());
    sha256(&all)
}
