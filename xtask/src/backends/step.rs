//! A program that is run with its output in a file, for a limited time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::build::root;

/// One line on what went wrong.
#[derive(Debug, PartialEq)]
pub struct Failure(pub String);

/// A program that has ended.
pub struct Step {
    /// What it printed.
    pub stdout: String,
    /// What it took.
    pub seconds: f64,
    stderr: String,
    status: Option<ExitStatus>,
    file: PathBuf,
}

impl Step {
    /// Runs `command` for at most `limit`, with its output in `target/backends/BACKEND/NAME.*`.
    pub fn run(
        backend: &str,
        name: &str,
        mut command: Command,
        limit: Duration,
    ) -> Result<Self, Failure> {
        let folder = root().join("target/backends").join(backend);
        let file = folder.join(name);
        let (out, err) = (file.with_extension("out"), file.with_extension("err"));
        let io = |error: std::io::Error| Failure(format!("{name}: {error}"));
        std::fs::create_dir_all(&folder).map_err(io)?;
        let create = |path: &Path| File::create(path).map_err(io);
        command
            .stdin(Stdio::null())
            .stdout(create(&out)?)
            .stderr(create(&err)?);
        let start = Instant::now();
        let mut child = command.spawn().map_err(io)?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(io)? {
                break status;
            }
            if start.elapsed() > limit {
                let _ = child.kill();
                let _ = child.wait();
                let limit = limit.as_secs();
                return Err(Failure(format!("{name}: no result in {limit} s")));
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let read = |path: &Path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ok(Self {
            stdout: read(&out),
            seconds: start.elapsed().as_secs_f64(),
            stderr: read(&err),
            status: Some(status),
            file,
        })
    }

    /// As [`run`](Self::run) without a limit, and with its messages on the terminal; it must succeed.
    pub fn unlimited(backend: &str, name: &str, mut command: Command) -> Result<Self, Failure> {
        let start = Instant::now();
        let status = command
            .stdout(Stdio::null())
            .status()
            .map_err(|error| Failure(format!("{name}: {error}")))?;
        match status.success() {
            true => Ok(Self {
                stdout: String::new(),
                seconds: start.elapsed().as_secs_f64(),
                stderr: String::new(),
                status: Some(status),
                file: PathBuf::new(),
            }),
            false => Err(Failure(format!("{name} of {backend} failed"))),
        }
    }

    /// The step, or the last line that it wrote before it failed.
    pub fn succeeded(self) -> Result<Self, Failure> {
        if self.status.is_some_and(|status| status.success()) {
            return Ok(self);
        }
        let status = self.status.map(|status| status.to_string());
        let line = self.stderr.lines().rev().find(|line| !line.is_empty());
        let line = line.map(|line| line.trim_start_matches("error: "));
        Err(Failure(match (line, status) {
            (Some(line), _) => line.to_string(),
            (None, Some(status)) => status,
            (None, None) => "it failed".into(),
        }))
    }

    /// Where its output lies.
    pub fn log(&self) -> String {
        let path = self.file.strip_prefix(root()).unwrap_or(&self.file);
        format!("{}.out", path.display())
    }

    #[cfg(test)]
    pub fn said(stdout: &str) -> Self {
        Self {
            stdout: stdout.into(),
            seconds: 1.0,
            stderr: String::new(),
            status: None,
            file: PathBuf::new(),
        }
    }
}

/// What `work` gives, and the seconds that it takes.
pub fn seconds<R>(work: impl FnOnce() -> R) -> (R, f64) {
    let start = Instant::now();
    (work(), start.elapsed().as_secs_f64())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Step, Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Step::run(
            "tests",
            script.split(' ').next().unwrap_or_default(),
            command,
            limit,
        )
    }

    #[test]
    fn a_step_ends_by_itself_or_at_its_limit() {
        let fine = shell("echo 1", Duration::from_secs(60)).unwrap();
        assert_eq!(fine.succeeded().map(|step| step.stdout), Ok("1\n".into()));
        let failed = shell(
            "printf 'x\\nerror: no\\n' >&2; exit 1",
            Duration::from_secs(60),
        )
        .unwrap();
        assert_eq!(failed.succeeded().map(|_| ()), Err(Failure("no".into())));
        let slow = shell("sleep 60", Duration::from_millis(100)).map(|_| ());
        assert!(slow.is_err_and(|failure| failure.0.contains("no result")));
    }
}
