//! Building and running `blip2`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Settings that glibc reads when a program starts; other systems have no such variable.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// Where a session's sockets lie.
const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
/// Large blocks in pages of 2 MiB: a model of 8 GB loads faster, for the system hands out and clears
/// 4,000 pages where it would be two million. And what a step frees is kept for the next one, in place
/// of being handed back and cleared anew: a fifth of the built-in training's time.
const MALLOC: &str = "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=1073741824:\
                      glibc.malloc.mmap_threshold=33554432";

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// The cargo that runs this.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Builds `blip2` for `backend`, then runs it with `arguments` in the current folder.
///
/// Build output goes to stderr: stdout belongs to `blip2`.
pub fn run_blip2(backend: &str, mut arguments: Vec<String>) -> ExitCode {
    let remote = takes_remote(&mut arguments);
    let binary = match build_blip2(backend, remote) {
        Ok(binary) => binary,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::FAILURE;
        }
    };
    match tuned(&binary).args(arguments).status() {
        Ok(status) => exit_code(status),
        Err(error) => {
            eprintln!("error: {} can't be started: {error}", binary.display());
            ExitCode::FAILURE
        }
    }
}

/// Takes `--remote` out of the arguments; whether they need devices of other machines.
fn takes_remote(arguments: &mut Vec<String>) -> bool {
    let before = arguments.len();
    arguments.retain(|argument| argument != "--remote");
    arguments.len() < before
        || arguments.first().is_some_and(|word| word == "serve-device")
        || arguments.iter().any(|argument| argument.contains("ws://"))
}

/// A command that starts `program` with these settings, unless the user has others.
pub fn tuned(program: &Path) -> Command {
    let mut command = Command::new(program);
    if std::env::var_os(TUNABLES).is_none() {
        command.env(TUNABLES, MALLOC);
    }
    // Without it a graphics driver that looks for a desktop complains, line after line.
    if cfg!(unix) && std::env::var_os(RUNTIME_DIR).is_none() {
        command.env(RUNTIME_DIR, std::env::temp_dir());
    }
    command
}

/// Builds `blip2` for `backend`, with devices of other machines if it is `remote`, and says where it is.
pub fn build_blip2(backend: &str, remote: bool) -> Result<PathBuf, String> {
    let remote = if remote { ",remote" } else { "" };
    let mut build = cargo();
    build
        .args([
            "build",
            "--release",
            "--package",
            "blip2-train",
            "--bin",
            "blip2",
        ])
        .args(["--no-default-features", "--features"])
        .arg(format!("{backend},hub{remote}"))
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit());
    let output = build
        .output()
        .map_err(|error| format!("cargo can't be started: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "building blip2 for the backend `{backend}` failed{}",
            needs(backend)
        ));
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| "cargo did not say where it put blip2".into())
}

/// What a build for `backend` takes besides Rust, to end a message with.
fn needs(backend: &str) -> &'static str {
    match backend {
        "cuda" | "cpu" => {
            "; it links LLVM 23, which the build downloads, and needs zlib's and zstd's headers (Debian: \
             zlib1g-dev libzstd-dev). Where that download is out of reach, a static LLVM in \
             ~/.local/share/tracel/tracel-llvm-23.1.0-4, with an empty file .tracel-llvm-installed, takes its \
             place"
        }
        "rocm" => "; it needs AMD's ROCm, in /opt/rocm or where ROCM_PATH says",
        "metal" => "; it needs macOS",
        _ => "",
    }
}

/// The path in cargo's `"executable":"…"` of the last artifact that has one.
fn executable(messages: &str) -> Option<PathBuf> {
    const KEY: &str = "\"executable\":\"";
    let line = messages.lines().rev().find(|line| line.contains(KEY))?;
    let start = line.find(KEY)? + KEY.len();
    let end = start + line[start..].find('"')?;
    // Backslashes are all that a path escapes.
    Some(PathBuf::from(line[start..end].replace("\\\\", "\\")))
}

/// The exit code of `status`; a signal's is 128 and its number, as in a shell.
pub fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(1));
    }
    match status.code() {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_other_machines_are_built_in_where_they_are_named() {
        for (line, needed) in [
            ("train --out x", false),
            ("train --remote --out x", true),
            ("serve-device", true),
            ("train --device flex,ws://gpu:3000", true),
        ] {
            let mut arguments: Vec<String> = line.split(' ').map(str::to_string).collect();
            assert_eq!(takes_remote(&mut arguments), needed, "{line}");
            assert!(!arguments.contains(&"--remote".to_string()));
        }
    }

    #[test]
    fn the_binary_is_found_in_cargos_messages() {
        let messages = "{\"reason\":\"a\",\"executable\":null}\n\
                        {\"reason\":\"b\",\"executable\":\"/t/blip2\",\"fresh\":true}\n\
                        {\"reason\":\"build-finished\"}";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/blip2")));
        assert_eq!(executable("{}"), None);
    }
}
