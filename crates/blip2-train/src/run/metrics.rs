//! `metrics.jsonl`: one line for each optimizer step and each validation.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::events::EventFile;
use super::folder::write_atomic;
use crate::RunError;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// An optimizer step.
    Train {
        /// Optimizer steps done, this one included.
        step: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The mean loss of the step's batches.
        loss: f64,
        /// What the loss is the sum of, by name, where it is a sum.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        losses: BTreeMap<String, f64>,
        /// The learning rate.
        lr: f64,
        /// The global gradient norm before clipping.
        grad_norm: f64,
        /// Images (or documents) of the step.
        items: usize,
        /// Items a second, forward, backward, optimizer and waiting for data.
        items_per_s: f64,
    },
    /// The validation after an epoch.
    Valid {
        /// Optimizer steps done.
        step: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The mean loss over the validation split.
        loss: f64,
        /// What the loss is the sum of, by name, where it is a sum.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        losses: BTreeMap<String, f64>,
        /// The name of `score`: `CIDEr`, `r_mean` or an accuracy.
        metric: String,
        /// The score that chooses the best checkpoint; a fraction.
        score: f64,
        /// Every score that was computed, by name; fractions.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        scores: BTreeMap<String, f64>,
        /// Seconds.
        seconds: f64,
    },
    /// A step that was left out because something was not a finite number.
    Skipped {
        /// Optimizer steps done, this one included.
        step: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// The first tensor that was not finite.
        tensor: String,
    },
    /// What the model makes of a few fixed images.
    Samples {
        /// Optimizer steps done.
        step: usize,
        /// The epoch, from 1.
        epoch: usize,
        /// Captions by image id.
        captions: BTreeMap<String, String>,
    },
}

/// The file, open for appending.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    lines: usize,
    /// Lines that a full disk did not take yet.
    waiting: String,
    events: Option<EventFile>,
}

impl MetricsFile {
    /// Opens `path` and drops what follows the first `lines`: a resumed run writes it anew.
    ///
    /// # Errors
    ///
    /// If it can't be read or written.
    pub fn open(path: &Path, lines: usize) -> Result<Self, RunError> {
        if path.exists() {
            let kept = Self::read(path)?.into_iter().take(lines);
            let text: String = kept.map(|record| line(&record)).collect();
            write_atomic(path, text.as_bytes())?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(RunError::io(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            lines,
            waiting: String::new(),
            events: None,
        })
    }

    /// The same numbers also to `events`.
    pub fn with_events(self, events: EventFile) -> Self {
        Self {
            events: Some(events),
            ..self
        }
    }

    /// The lines written up to now.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Appends one line. A full disk must not end a run: what it does not take is kept in memory and
    /// written with a later line.
    pub fn append(&mut self, record: &Record) {
        self.lines += 1;
        let first = self.waiting.is_empty();
        self.waiting += &line(record);
        if let Err(error) = self.write_waiting()
            && first
        {
            tracing::error!("{}: {error}; its lines wait in memory", self.path.display());
        }
        if let Some(events) = &mut self.events
            && let Err(error) = events.write(record)
        {
            tracing::error!("TensorBoard's file ends here: {error}");
            self.events = None;
        }
    }

    /// Has the system write what it holds of the file, for a checkpoint counts on its lines.
    pub fn sync(&self) {
        if let Err(error) = self.file.sync_data() {
            tracing::error!("{}: {error}", self.path.display());
        }
    }

    fn write_waiting(&mut self) -> std::io::Result<()> {
        let whole = self.file.metadata()?.len();
        let written = self.file.write_all(self.waiting.as_bytes());
        match written {
            Ok(()) => self.waiting.clear(),
            // Half a line would spoil the next one.
            Err(_) => self.file.set_len(whole)?,
        }
        written
    }

    /// All whole lines of a metrics file. A last line that a kill cut off is left out.
    ///
    /// # Errors
    ///
    /// If it can't be read.
    pub fn read(path: &Path) -> Result<Vec<Record>, RunError> {
        let file = File::open(path).map_err(RunError::io(path))?;
        let lines = BufReader::new(file)
            .lines()
            .collect::<Result<Vec<_>, _>>()
            .map_err(RunError::io(path))?;
        Ok(lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }
}

fn line(record: &Record) -> String {
    // Numbers and short strings always serialise.
    serde_json::to_string(record).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(step: usize) -> Record {
        Record::Train {
            step,
            epoch: 1,
            loss: 0.5,
            losses: BTreeMap::new(),
            lr: 1e-3,
            grad_norm: 1.0,
            items: 8,
            items_per_s: 10.0,
        }
    }

    #[test]
    fn a_resumed_run_drops_later_lines_and_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        for step in 1..=3 {
            file.append(&train(step));
        }
        file.file.write_all(b"{\"kind\":\"tra").unwrap();
        let mut file = MetricsFile::open(&path, 2).unwrap();
        file.append(&train(3));
        let expected: Vec<Record> = (1..=3).map(train).collect();
        assert_eq!(MetricsFile::read(&path).unwrap(), expected);
    }
}
