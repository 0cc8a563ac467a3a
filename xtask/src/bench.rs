//! `cargo xtask bench WHAT`: the same work here and in the reference's programs, in one run.

mod features;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::build::{cargo, exit_code, root};

/// What the comparison needs from PyPI.
const PACKAGES: [&str; 1] = ["pycocoevalcap==1.2"];

/// Runs the comparison that `arguments` name.
pub fn bench(backend: &str, arguments: &[String]) -> ExitCode {
    let result = match arguments.first().map(String::as_str) {
        Some("eval") => eval(&arguments[1..]),
        Some("features") => features::features(backend, &arguments[1..]),
        _ => {
            eprintln!(
                "error: cargo xtask bench eval [--images N]: scores against pycocoevalcap\n       \
                 cargo xtask bench features [CONFIG]: training with and without the feature cache"
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
    let python = python()?;
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

/// A Python with the packages: the active one if it has them, else an environment under `target`.
fn python() -> Result<PathBuf, String> {
    let active = Path::new("python3");
    if has_packages(active) {
        return Ok(active.to_path_buf());
    }
    let folder = root().join("target/bench-python");
    let python = folder.join("bin/python");
    if !has_packages(&python) {
        eprintln!("making {} with {}", folder.display(), PACKAGES.join(", "));
        let mut venv = Command::new(active);
        venv.args(["-m", "venv"]).arg(&folder);
        run(&mut venv, "making a Python environment")?;
        let mut install = Command::new(&python);
        install
            .args(["-m", "pip", "install", "--quiet"])
            .args(PACKAGES);
        run(&mut install, "installing pycocoevalcap")?;
    }
    Ok(python)
}

fn has_packages(python: &Path) -> bool {
    answers(Command::new(python).args(["-c", "import pycocoevalcap.eval"]))
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
