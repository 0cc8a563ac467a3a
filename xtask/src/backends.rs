//! `cargo xtask backends`: what each backend does on this machine, as a table in Markdown.
//!
//! Of each backend in turn: the tests of parity and `blip2` are built, one binary a backend; the tests run
//! on its first device (`BURN_DEVICE` names it), then a short training of a debug config and a caption, whose
//! token ids must be those of `flex`.

mod step;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use self::step::{Failure, Step, seconds};
use crate::backend::BACKENDS;
use crate::build::{build_blip2, cargo, root, tuned};

/// What a step may take; a backend whose kernels are compiled as they are met can be slow.
const LIMIT: Duration = Duration::from_secs(1200);
/// The packages with tests of parity, and the one whose features choose the backend.
const PACKAGES: [&str; 5] = [
    "blip2",
    "blip2-vision",
    "blip2-qformer",
    "blip2-lm",
    "blip2-train",
];
/// Their tests of parity: outputs, losses and gradients against the references' numbers.
const TESTS: [&str; 6] = [
    "parity",
    "stage1_parity",
    "text_parity",
    "training",
    "opt_parity",
    "opt_gradients",
];
/// The image that is captioned, and the model that captions it.
const IMAGE: &str = "tests/reference/preprocess/420.jpg";
const MODEL: &str = "tests/reference/blip2/plain";
/// A training of five steps.
const TRAINING: [&str; 10] = [
    "--config",
    "configs/debug/caption_coco_opt2.7b.toml",
    "--set",
    "train.epochs=1",
    "--set",
    "train.accumulation=1",
    "--set",
    "data.train.limit=8",
    "--set",
    "data.val.limit=2",
];

/// Tries `wanted`, or every backend.
pub fn backends(wanted: Option<&str>) -> ExitCode {
    let words = BACKENDS
        .into_iter()
        .filter(|word| wanted.is_none_or(|wanted| wanted == *word));
    let mut failed = false;
    let mut rows = Vec::new();
    for backend in words {
        eprintln!("== {backend}");
        let row = match cannot_build(backend) {
            Some(reason) => Row::not_built(backend, &format!("no: {reason}")),
            None => try_out(backend),
        };
        failed |= row.failed;
        rows.push(row);
    }
    println!("| command | device | built | parity tests | training | caption |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for row in rows {
        println!("{}", row.line());
    }
    ExitCode::from(u8::from(failed))
}

/// What a backend did.
struct Row {
    backend: &'static str,
    cells: [String; 5],
    failed: bool,
}

impl Row {
    fn new(backend: &'static str) -> Self {
        Self {
            backend,
            cells: std::array::from_fn(|_| "not run".to_string()),
            failed: false,
        }
    }

    fn not_built(backend: &'static str, reason: &str) -> Self {
        let mut row = Self::new(backend);
        row.cells[0] = String::new();
        row.cells[1] = reason.to_string();
        row
    }

    /// Puts what a step said into its cell; false if it failed.
    fn set(&mut self, cell: usize, said: Result<String, Failure>) -> bool {
        let fine = said.is_ok();
        // A pipe would end the cell.
        let text = said.unwrap_or_else(|failure| failure.0).replace('|', "/");
        eprintln!("{}: {text}", self.backend);
        self.cells[cell] = text;
        self.failed |= !fine;
        fine
    }

    fn line(&self) -> String {
        format!(
            "| `cargo xtask backends --backend {}` | {} |",
            self.backend,
            self.cells.join(" | ")
        )
    }
}

fn try_out(backend: &'static str) -> Row {
    let mut row = Row::new(backend);
    let (built, seconds) = seconds(|| {
        run_tests(backend, true)?;
        build_blip2(backend, false).map_err(Failure)
    });
    let blip2 = match built {
        Ok(blip2) => blip2,
        Err(failure) => {
            row.cells[0] = String::new();
            row.set(1, Err(failure));
            return row;
        }
    };
    row.set(1, Ok(format!("yes, {seconds:.0} s")));
    let device = format!("{backend}:0");
    // A machine without the device has built all the same: that is no failure.
    match first_device(backend, &blip2, &device) {
        Ok(name) => row.cells[0] = name,
        Err(failure) => {
            row.cells[0] = failure.0;
            return row;
        }
    }
    row.set(2, run_tests(backend, false).and_then(counted));
    row.set(3, train(backend, &blip2, &device));
    row.set(4, caption(backend, &blip2, &device));
    row
}

/// The tests of parity with `backend` compiled in, on its first device.
fn run_tests(backend: &str, only_build: bool) -> Result<Step, Failure> {
    let mut command = cargo();
    command.args(["test", "--release", "--no-default-features", "--features"]);
    command.arg(format!("blip2-train/{backend},blip2-train/hub"));
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    for test in TESTS {
        command.args(["--test", test]);
    }
    if only_build {
        command.arg("--no-run");
        return Step::unlimited(backend, "build", command);
    }
    command.arg("--no-fail-fast").env("BURN_DEVICE", backend);
    Step::run(backend, "parity", command, LIMIT)
}

/// How many tests cargo counted.
fn counted(step: Step) -> Result<String, Failure> {
    let results = step
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("test result: "));
    let (mut passed, mut failed) = (0, 0);
    for result in results {
        let number = |word: &str| -> usize {
            let before = result.split(word).next().unwrap_or_default();
            let number = before.trim().rsplit(' ').next().unwrap_or_default();
            number.parse().unwrap_or_default()
        };
        passed += number(" passed");
        failed += number(" failed");
    }
    match (passed, failed) {
        (0, _) => Err(Failure(format!("no test passed, see {}", step.log()))),
        (_, 0) => Ok(format!("{passed} of {passed} pass, {:.0} s", step.seconds)),
        _ => Err(Failure(format!(
            "{failed} of {} fail, see {}",
            passed + failed,
            step.log()
        ))),
    }
}

fn first_device(backend: &str, blip2: &Path, device: &str) -> Result<String, Failure> {
    let mut command = tuned(blip2);
    command.arg("devices");
    let step = Step::run(backend, "devices", command, LIMIT)?.succeeded()?;
    let line = step.stdout.lines().find_map(|line| {
        let (word, rest) = line.split_once('\t')?;
        (word == device).then_some(rest)
    });
    match line.and_then(|rest| rest.split_once('\t')) {
        Some((name, precisions)) => Ok(format!("{name}: {precisions}")),
        None => {
            // The binary says what is missing.
            let mut command = tuned(blip2);
            command.args(["inspect", MODEL, "--device", device]);
            Step::run(backend, "device", command, LIMIT)?.succeeded()?;
            Err(Failure(format!("{device} is not listed")))
        }
    }
}

fn train(backend: &str, blip2: &Path, device: &str) -> Result<String, Failure> {
    let run = root().join("target/backends").join(backend).join("run");
    let _ = std::fs::remove_dir_all(&run);
    let mut command = tuned(blip2);
    command.current_dir(root()).arg("train").args(TRAINING);
    command.arg("--set").arg(test_split());
    command.args(["--device", device, "--out"]).arg(&run);
    let step = Step::run(backend, "train", command, LIMIT)?.succeeded()?;
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl"))
        .map_err(|error| Failure(format!("no metrics: {error}")))?;
    let losses: Vec<&str> = metrics
        .lines()
        .filter(|line| line.contains("\"kind\":\"train\""))
        .filter_map(|line| field(line, "\"loss\":"))
        .map(|loss| &loss[..loss.len().min(6)])
        .collect();
    match (losses.first(), losses.last()) {
        (Some(first), Some(last)) => Ok(format!(
            "{} steps, loss {first} to {last}, {:.0} s with scoring",
            losses.len(),
            step.seconds
        )),
        _ => Err(Failure(format!("no step, see {}", step.log()))),
    }
}

/// Two images, where the config has eight.
fn test_split() -> String {
    let set = root().join("datasets/emoji-scenes");
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    format!(
        "data.test=[{{name=\"test\", limit=2, split=\"test\", annotations={}, images={}}}]",
        quoted(&set.join("dataset_karpathy.json")),
        quoted(&set.join("images"))
    )
}

/// A caption, whose token ids must be those of `flex`, which each binary has.
fn caption(backend: &str, blip2: &Path, device: &str) -> Result<String, Failure> {
    let ids = |step: &str, device: &str| {
        let mut command = tuned(blip2);
        command.current_dir(root()).args(["caption", "--json"]);
        command.args(["--model", MODEL, "--image", IMAGE, "--num-beams", "5"]);
        command.args(["--device", device]);
        let step = Step::run(backend, step, command, LIMIT)?.succeeded()?;
        let ids = list(&step.stdout, "\"token_ids\":").map(str::to_string);
        let ids = ids.ok_or_else(|| Failure(format!("no caption, see {}", step.log())))?;
        Ok((ids, step.seconds))
    };
    let (theirs, seconds) = ids("caption", device)?;
    let (flex, _) = ids("caption-flex", "flex")?;
    match theirs == flex {
        true => Ok(format!("token ids of flex, {seconds:.1} s")),
        false => Err(Failure(format!("token ids {theirs}, flex has {flex}"))),
    }
}

/// The number after `key` in a line of JSON.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = &line[line.find(key)? + key.len()..];
    rest.split([',', '}']).next()
}

/// The list after `key`.
fn list<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = &line[line.find(key)? + key.len()..];
    Some(&rest[..=rest.find(']')?])
}

/// Why this machine can't build `backend`, where that is known before.
fn cannot_build(backend: &str) -> Option<&'static str> {
    let rocm = std::env::var_os("ROCM_PATH").is_some() || Path::new("/opt/rocm").exists();
    match backend {
        "metal" if !cfg!(target_os = "macos") => Some("needs macOS"),
        "rocm" if !rocm => Some("needs AMD's ROCm (neither ROCM_PATH nor /opt/rocm is there)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists_are_found_in_json() {
        let line = "{\"kind\":\"train\",\"step\":3,\"loss\":2.5,\"token_ids\":[1,2],\"score\":-1}";
        assert_eq!(field(line, "\"loss\":"), Some("2.5"));
        assert_eq!(field("{\"loss\":3}", "\"loss\":"), Some("3"));
        assert_eq!(field(line, "\"lr\":"), None);
        assert_eq!(list(line, "\"token_ids\":"), Some("[1,2]"));
    }

    #[test]
    fn tests_are_counted_over_all_programs() {
        let step = |stdout: &str| Step::said(stdout);
        let two = "test result: ok. 3 passed; 0 failed; 0 ignored\nx\n\
                   test result: ok. 4 passed; 0 failed; 0 ignored";
        assert!(counted(step(two)).is_ok_and(|said| said.starts_with("7 of 7 pass")));
        let failed = two.replace("ok. 4 passed; 0", "FAILED. 3 passed; 1");
        assert!(counted(step(&failed)).is_err_and(|said| said.0.starts_with("1 of 7 fail")));
        assert!(counted(step("test result: ok. 0 passed; 0 failed")).is_err());
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_table() {
        let mut row = Row::new("cuda");
        assert!(!row.set(0, Err(Failure("a | b".into()))));
        assert!(row.failed);
        assert_eq!(row.line().matches('|').count(), 7);
        assert!(!Row::not_built("metal", "no").failed);
    }
}
