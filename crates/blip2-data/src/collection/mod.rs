//! Images to caption, many of them and without captions: a folder, a list in JSONL, or tar shards.
//!
//! A collection has one order, which depends on what is there and nothing else, and so it can be dealt
//! to any number of tasks that know nothing of each other: [`Part`] `i` of `n` takes every `n`-th item
//! from the `i`-th on. Several tars are dealt whole, so that a task reads its own alone.

mod folder;
mod jsonl;
mod part;
mod read;
mod tar;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use part::Part;
pub use read::{CollectionBatch, ReadAhead};

use crate::DataError;
use crate::annotations::Skipped;
use crate::skips::{OnError, SkipLog};
use crate::stream::{OpenFiles, Shard};

/// The names of images, as shards in the layout of WebDataset have them.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// An image to caption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is called in results: its path below the folder, its text in the list, or
    /// `shard.tar/entry`. No two items of a collection share one.
    pub name: String,
    /// The text that its caption goes on from, where the list says one.
    pub prompt: Option<String>,
    place: Place,
}

/// Where an image's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Entry {
        tar: Arc<Shard>,
        offset: u64,
        size: u64,
    },
}

/// One task's part of a collection.
#[derive(Debug)]
pub struct Collection {
    items: Vec<Item>,
    problems: Vec<Skipped>,
    /// The tars that were read last, open.
    files: OpenFiles,
    skips: SkipLog,
}

impl Collection {
    /// Lists `part` of the images of `source`:
    ///
    /// - a folder: the images below it, links followed, hidden files left out, by relative path; a
    ///   folder without images stands for the `.tar` files in it;
    /// - a list `.jsonl`: an object a line with `image` or `file_name`, and `prompt` if there is one; other
    ///   fields are passed over, relative paths are relative to `image_root` or else the list's
    ///   folder;
    /// - a `.tar` file, or several by braces and wildcards (`shard-{000..099}.tar`): the images in
    ///   them.
    ///
    /// What can't be listed is an error or, if `skips` says so, left out and one of
    /// [`problems`](Self::problems).
    ///
    /// # Errors
    ///
    /// A source that is not there, that is none of these, or that holds no image at all.
    pub fn open(
        source: &Path,
        image_root: Option<&Path>,
        part: Part,
        skips: SkipLog,
    ) -> Result<Self, DataError> {
        let kind = Kind::of(source)?;
        if image_root.is_some() && !matches!(kind, Kind::List) {
            return Err(DataError::Config {
                field: "--image-root".into(),
                reason: "belongs to a list of images (.jsonl)".into(),
            });
        }
        let mut listing = Listing::new(skips.clone());
        match kind {
            Kind::Folder => folder::list(source, part, &mut listing)?,
            Kind::List => jsonl::list(source, image_root, part, &mut listing)?,
            Kind::Tars(paths) => tar::list(&paths, part, &mut listing)?,
        }
        Ok(Self {
            items: listing.items,
            problems: listing.problems,
            files: OpenFiles::default(),
            skips,
        })
    }

    /// The images, in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// What can't be listed and was left out.
    pub fn problems(&self) -> &[Skipped] {
        &self.problems
    }

    /// Whether unreadable images end the work or are left out, and how many were.
    pub fn skips(&self) -> &SkipLog {
        &self.skips
    }
}

/// What a source is.
enum Kind {
    Folder,
    List,
    Tars(Vec<PathBuf>),
}

impl Kind {
    fn of(source: &Path) -> Result<Self, DataError> {
        if source.is_dir() {
            return Ok(Self::Folder);
        }
        match source.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "ndjson") => return Ok(Self::List),
            Some("tar") => return tar::expand(source).map(Self::Tars),
            _ if source.exists() => {}
            _ if source.to_string_lossy().contains(['{', '*', '?']) => {
                return tar::expand(source).map(Self::Tars);
            }
            _ => {}
        }
        // What is missing is more likely than what is unknown.
        source.metadata().map_err(DataError::io(source))?;
        Err(DataError::Config {
            field: "--images".into(),
            reason: format!(
                "`{}` is no folder, no list of images (.jsonl) and no .tar file; single images go to \
                 --image",
                source.display()
            ),
        })
    }
}

/// Items as they are found.
struct Listing {
    items: Vec<Item>,
    names: HashSet<String>,
    problems: Vec<Skipped>,
    skips: SkipLog,
}

impl Listing {
    fn new(skips: SkipLog) -> Self {
        Self {
            items: Vec::new(),
            names: HashSet::new(),
            problems: Vec::new(),
            skips,
        }
    }

    /// Adds an item. `file` and `field` say where it was found.
    fn add(&mut self, item: Item, file: &Path, field: &str) -> Result<(), DataError> {
        if !self.names.insert(item.name.clone()) {
            return self.problem(DataError::Annotation {
                file: file.into(),
                field: field.into(),
                reason: format!("`{}` occurs twice; results are told apart by it", item.name),
            });
        }
        self.items.push(item);
        Ok(())
    }

    /// Fails with `error`, or notes it.
    fn problem(&mut self, error: DataError) -> Result<(), DataError> {
        if self.skips.on_error() == OnError::Fail {
            return Err(error);
        }
        let (what, reason) = match &error {
            DataError::Annotation {
                file,
                field,
                reason,
            } => (format!("{}: {field}", file.display()), reason.clone()),
            DataError::Shard {
                shard,
                place,
                reason,
            } => (format!("{}: {place}", shard.display()), reason.clone()),
            DataError::Io { path, source } => (path.display().to_string(), source.to_string()),
            other => (other.to_string(), "can't be listed".into()),
        };
        self.skips.add(&what, &reason);
        self.problems.push(Skipped { what, reason });
        Ok(())
    }
}

/// Whether a file's name is that of an image, and not hidden.
fn is_image_name(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    let extension = base.rsplit_once('.').map(|(_, extension)| extension);
    !base.starts_with('.')
        && extension.is_some_and(|extension| {
            EXTENSIONS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(extension))
        })
}

#[cfg(test)]
mod tests;
