//! The captions of a task as lines of JSON, which tell a later run what is finished.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use blip2_data::annotations::Skipped;
use blip2_data::collection::Collection;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CaptionedImage, CaptioningError, OutputFiles, Progress, Settings, Sink, parquet};
use crate::RunError;

/// Appends lines in order, each batch at once. Whatever ends the process leaves whole lines and at most
/// one torn one, which is cut off at the next start.
#[derive(Debug)]
pub struct Journal {
    files: OutputFiles,
    lines: File,
    /// By the items' places.
    progress: Vec<Progress>,
    /// What was left out that is no item.
    problems: HashSet<String>,
}

/// What is read again of a line.
#[derive(Deserialize)]
struct Named {
    image: String,
}

#[derive(Serialize, Deserialize)]
struct SkippedLine {
    image: String,
    reason: String,
}

impl Journal {
    /// Begins the files, or goes on with them. None if the Parquet file is finished.
    ///
    /// # Errors
    ///
    /// Captions that were made with other settings, or of other images; or files that can't be used.
    pub fn open(
        files: OutputFiles,
        settings: &Settings,
        collection: &Collection,
    ) -> Result<Option<Self>, RunError> {
        if let Some(folder) = files.lines.parent() {
            fs::create_dir_all(folder).map_err(RunError::io(folder))?;
        }
        let existed = files.lines.exists();
        if let Some(table) = &files.table
            && table.exists()
            && !existed
        {
            settings.check(&files)?;
            return Ok(None);
        }
        let lines = appended(&files.lines)?;
        if let Err(TryLockError::WouldBlock) = lines.try_lock() {
            return Err(CaptioningError::Busy { file: files.lines }.into());
        }
        let is_empty = lines.metadata().map_err(RunError::io(&files.lines))?.len() == 0;
        // A start that came to nothing binds nobody: its model may have been a slip of the pen.
        let is_new = !existed || (is_empty && !files.skipped.exists());
        let mut journal = Self {
            lines,
            progress: vec![Progress::Pending; collection.items().len()],
            problems: HashSet::new(),
            files,
        };
        if is_new {
            if journal.files.skipped.exists() {
                fs::remove_file(&journal.files.skipped)
                    .map_err(RunError::io(&journal.files.skipped))?;
            }
            settings.write(&journal.files.settings)?;
        } else {
            settings.check(&journal.files)?;
            journal.read(collection)?;
        }
        Ok(Some(journal))
    }

    /// Takes in what was written before.
    fn read(&mut self, collection: &Collection) -> Result<(), RunError> {
        let names = collection.items().iter().map(|item| &*item.name);
        let places: HashMap<&str, usize> = names.zip(0..).collect();
        let path = &self.files.lines;
        read_lines(&self.lines, path, |line, Named { image }| {
            let Some(&item) = places.get(&*image) else {
                let file = path.clone();
                return Err(CaptioningError::Foreign { file, line, image });
            };
            if self.progress[item] != Progress::Pending {
                return Err(CaptioningError::Line {
                    file: path.clone(),
                    line,
                    reason: format!("`{image}` occurs twice"),
                });
            }
            self.progress[item] = Progress::Captioned;
            Ok(())
        })?;
        let path = &self.files.skipped;
        if !path.exists() {
            return Ok(());
        }
        read_lines(&appended(path)?, path, |_, line: SkippedLine| {
            match places.get(&*line.image) {
                Some(&item) => self.progress[item] = Progress::Skipped,
                None => {
                    self.problems.insert(line.image);
                }
            }
            Ok(())
        })
    }

    /// How many images are as far as `progress`.
    pub fn count(&self, progress: Progress) -> usize {
        let all = self.progress.iter();
        all.filter(|&&known| known == progress).count()
    }

    /// How much was left out, images or not.
    pub fn skipped(&self) -> usize {
        self.count(Progress::Skipped) + self.problems.len()
    }

    /// Where its results are, or will be.
    pub fn files(&self) -> &OutputFiles {
        &self.files
    }

    /// Makes the Parquet file, if that was asked for.
    ///
    /// # Errors
    ///
    /// If it can't be written.
    pub fn finish(self) -> Result<(), RunError> {
        let lines = &self.files.lines;
        if let Some(table) = &self.files.table {
            parquet::write(lines, table)?;
            fs::remove_file(lines).map_err(RunError::io(lines))?;
        }
        Ok(())
    }
}

impl Sink for Journal {
    fn progress(&self, item: usize) -> Progress {
        self.progress[item]
    }

    fn write(&mut self, captioned: Vec<(usize, CaptionedImage)>) -> Result<(), RunError> {
        let lines = captioned.iter().map(|(_, line)| line);
        append(&mut self.lines, &self.files.lines, lines)?;
        for (item, _) in captioned {
            self.progress[item] = Progress::Captioned;
        }
        Ok(())
    }

    fn skip(&mut self, skipped: Vec<(Option<usize>, Skipped)>) -> Result<(), RunError> {
        let mut lines = Vec::new();
        for (item, skipped) in skipped {
            let is_new = match item {
                Some(item) => {
                    let before = std::mem::replace(&mut self.progress[item], Progress::Skipped);
                    before == Progress::Pending
                }
                None => self.problems.insert(skipped.what.clone()),
            };
            if is_new {
                lines.push(SkippedLine {
                    image: skipped.what,
                    reason: skipped.reason,
                });
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        let path = &self.files.skipped;
        append(&mut appended(path)?, path, lines.iter())
    }
}

/// `path`, opened for reading and for writing at its end; made if it is not there.
fn appended(path: &Path) -> Result<File, RunError> {
    let mut options = OpenOptions::new();
    let options = options.create(true).read(true).append(true);
    options.open(path).map_err(RunError::io(path))
}

fn append<'a, T: Serialize + 'a>(
    file: &mut File,
    path: &Path,
    lines: impl Iterator<Item = &'a T>,
) -> Result<(), RunError> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line)
            .map_err(|error| RunError::io(path)(error.into()))?;
        bytes.push(b'\n');
    }
    file.write_all(&bytes).map_err(RunError::io(path))
}

/// Reads the lines of `file` with their numbers; cuts off a last one that is torn.
fn read_lines<T: DeserializeOwned>(
    file: &File,
    path: &Path,
    take: impl FnMut(usize, T) -> Result<(), CaptioningError>,
) -> Result<(), RunError> {
    let whole = each_line(file, path, take)?;
    let length = file.metadata().map_err(RunError::io(path))?.len();
    match whole < length {
        true => file.set_len(whole).map_err(RunError::io(path)),
        false => Ok(()),
    }
}

/// Reads the whole lines of `file` with their numbers; says where the last one ends.
pub(super) fn each_line<T: DeserializeOwned>(
    file: &File,
    path: &Path,
    mut take: impl FnMut(usize, T) -> Result<(), CaptioningError>,
) -> Result<u64, RunError> {
    let mut reader = BufReader::new(file);
    let (mut line, mut end) = (Vec::new(), 0);
    for number in 1.. {
        line.clear();
        let length = reader
            .read_until(b'\n', &mut line)
            .map_err(RunError::io(path))?;
        if !line.ends_with(b"\n") {
            break;
        }
        let parsed = serde_json::from_slice(&line).map_err(|error| CaptioningError::Line {
            file: path.into(),
            line: number,
            reason: format!("{error}; `blip2 caption --images` did not write it"),
        })?;
        take(number, parsed)?;
        end += length as u64;
    }
    Ok(end)
}
