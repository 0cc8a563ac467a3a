//! `cargo xtask bench WHAT`: the same work here and in the reference's programs, in one run.

mod features;
mod model;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::build::{cargo, exit_code, root};

/// Runs the comparison that `arguments` name.
pub fn bench(backend: &str, arguments: &[String]) -> ExitCode {
    let result = match arguments.first().map(String::as_str) {
        Some("eval") => eval(&arguments[1..]),
        Some("features") => features::features(backend, &arguments[1..]),
        Some("model") => model::model(backend, &arguments[1..]),
        None => model::model(backend, &[]),
        _ => {
            eprintln!(
                "error: cargo xtask bench eval [--images N]: scores against pycocoevalcap\n       \
                 cargo xtask bench features [CONFIG]: training with and without the feature cache\n       \
                 cargo xtask bench [model [small|base] [--json] [--growth]]: time and memory against \
                 PyTorch with transformers"
            );
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::FAILURE
    })
}

/// Builds the programs of blip2-eval and compares them with pycocoevalcap: every token, every
/// score, the time.
fn eval(arguments: &[String]) -> Result<ExitCode, String> {
    if !answers(Command::new("java").arg("-version")) {
        return Err("pycocoevalcap needs Java, and `java -version` does not run".into());
    }
    let python = python_with(
        "bench-python",
        &["pycocoevalcap==1.2"],
        "import pycocoevalcap.eval",
    )?;
    let mut build = cargo();
    build.args([
        "build",
        "--release",
        "--package",
        "blip2-eval",
        "--examples",
    ]);
    run(&mut build, "building the examples of blip2-eval")?;
    let mut check = Command::new(python);
    check
        .arg(root().join("tests/reference/eval_check.py"))
        .arg(root().join("target/release/examples"))
        .args(arguments);
    let status = check.status().map_err(|error| error.to_string())?;
    Ok(exit_code(status))
}

/// A Python that can `import` what is needed: the active one, else an environment under `target` with
/// `packages`.
fn python_with(name: &str, packages: &[&str], import: &str) -> Result<PathBuf, String> {
    let can_import = |python: &Path| answers(Command::new(python).args(["-c", import]));
    let active = Path::new("python3");
    if can_import(active) {
        return Ok(active.to_path_buf());
    }
    let folder = root().join("target").join(name);
    let python = folder.join("bin/python");
    if !can_import(&python) {
        eprintln!("making {} with {}", folder.display(), packages.join(", "));
        let mut venv = Command::new(active);
        venv.args(["-m", "venv"]).arg(&folder);
        run(&mut venv, "making a Python environment")?;
        let mut install = Command::new(&python);
        install
            .args(["-m", "pip", "install", "--quiet"])
            .args(packages);
        run(&mut install, &format!("installing {}", packages.join(", ")))?;
    }
    Ok(python)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn answers(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command, what: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed: {status}")),
        Err(error) => Err(format!("{what} failed: {error}")),
    }
}
