//! The files of a captioning task, by the name of its result.

use std::path::{Path, PathBuf};

use super::CaptioningError;

/// Where a task writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFiles {
    /// `NAME.jsonl`, or `NAME.parquet.partial.jsonl`: a line an image.
    pub lines: PathBuf,
    /// `NAME.parquet`, if that is what is made in the end.
    pub table: Option<PathBuf>,
    /// `NAME.jsonl.run.json` or `NAME.parquet.run.json`: what made the captions.
    pub settings: PathBuf,
    /// `NAME.skipped.jsonl`: what was left out, and why.
    pub skipped: PathBuf,
}

impl OutputFiles {
    /// The files that go with the result `out`.
    ///
    /// # Errors
    ///
    /// If it is neither a `.jsonl` nor a `.parquet`.
    pub fn of(out: &Path) -> Result<Self, CaptioningError> {
        let table = match out.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl") => None,
            Some("parquet") => Some(out.to_path_buf()),
            _ => return Err(CaptioningError::Extension { path: out.into() }),
        };
        Ok(Self {
            lines: match &table {
                Some(table) => with(table, ".partial.jsonl"),
                None => out.into(),
            },
            table,
            settings: with(out, ".run.json"),
            skipped: out.with_extension("skipped.jsonl"),
        })
    }

    /// What was asked for.
    pub fn result(&self) -> &Path {
        self.table.as_ref().unwrap_or(&self.lines)
    }
}

/// `path` with more at the end of its name.
pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
