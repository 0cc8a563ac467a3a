//! Why the files of a captioning task can't be used.

use std::path::PathBuf;

use thiserror::Error;

/// Every message names the file and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaptioningError {
    /// The name does not say what to write.
    #[error("--out {path}: must end in .jsonl or .parquet", path = path.display())]
    Extension {
        /// What was given.
        path: PathBuf,
    },
    /// The captions that are there were made in another way.
    #[error(
        "{file} was begun with {flag} {was}, now it is {now}: give the same again, or another --out",
        file = file.display()
    )]
    Settings {
        /// The file with the captions.
        file: PathBuf,
        /// The first flag that differs.
        flag: String,
        /// Its value then.
        was: String,
        /// Its value now.
        now: String,
    },
    /// Captions without a word on what made them.
    #[error(
        "{file} is there, but not {settings}, which says what made it: give another --out, or delete it",
        file = file.display(),
        settings = settings.display()
    )]
    NoSettings {
        /// The file with the captions.
        file: PathBuf,
        /// The file that is missing or broken.
        settings: PathBuf,
    },
    /// A line about an image that this task does not caption.
    #[error(
        "{file}: line {line}: `{image}` is no image of this source and shard; were images added or \
         removed since? Give another --out",
        file = file.display()
    )]
    Foreign {
        /// The file with the captions.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// The image.
        image: String,
    },
    /// A line that this program did not write.
    #[error("{file}: line {line}: {reason}", file = file.display())]
    Line {
        /// The file with the captions.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Two tasks with one output.
    #[error(
        "{file}: another process writes to it; each task needs an --out of its own",
        file = file.display()
    )]
    Busy {
        /// The file with the captions.
        file: PathBuf,
    },
    /// The Parquet file can't be written.
    #[error("{file}: {reason}", file = file.display())]
    Parquet {
        /// The file.
        file: PathBuf,
        /// What the writer said.
        reason: String,
    },
}

impl CaptioningError {
    /// Whether the command line is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Extension { .. } | Self::Settings { .. })
    }
}
