//! A program that does what it is told, line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::setup::Side;

/// A running side.
pub struct Worker {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// How long its model took to load.
    pub load_seconds: f64,
}

impl Worker {
    /// Starts `side` and waits until its model is loaded.
    pub fn start(side: &Side) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", side.name);
        let mut command = side.command();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{} has no pipes", side.name));
        };
        let mut worker = Self {
            child,
            requests,
            answers: BufReader::new(answers),
            load_seconds: 0.0,
        };
        worker.load_seconds = worker
            .answer()
            .map_err(|error| format!("{}: {error}", side.name))?;
        Ok(worker)
    }

    /// Has it do `request`; its answer.
    pub fn ask(&mut self, request: &str) -> Result<f64, String> {
        writeln!(self.requests, "{request}").map_err(|error| error.to_string())?;
        self.answer()
    }

    fn answer(&mut self) -> Result<f64, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err("it ended; its message stands above".into()),
            Ok(_) => line
                .trim()
                .parse()
                .map_err(|_| format!("it said {}", line.trim())),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
