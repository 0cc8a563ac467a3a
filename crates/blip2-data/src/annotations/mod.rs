//! Annotation files: COCO captions JSON, Karpathy JSON, LAVIS's lists, JSONL, and COCO instances.

mod coco;
pub mod instances;
mod join;
mod jsonl;
mod karpathy;
mod lavis;
mod paths;

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use paths::resolve;

use crate::DataError;
use crate::sample::Sample;

/// The format of an annotation file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `{"images": […], "annotations": […]}`.
    Coco,
    /// `{"images": [{"filename", "split", "sentences": […]}]}`.
    Karpathy,
    /// A line each: `{"image": …, "caption": …}` or `{"image": …, "captions": […]}`.
    Jsonl,
    /// `[{"image": …, "caption": …}]`, a caption or a list of captions.
    Lavis,
}

/// What happens at data that can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The first problem ends the run.
    Fail,
    /// It is left out, counted and listed.
    Skip,
}

/// How [`load`] reads.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The format, where it can't be told from the file.
    pub format: Option<Format>,
    /// The split inside a Karpathy file.
    pub split: Option<String>,
    /// What happens at entries that can't be used.
    pub on_error: OnError,
    /// Whether an image without captions is a problem.
    pub require_captions: bool,
}

/// Something that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file, or the place in it.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// What [`load`] found.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The images, in the order of the file.
    pub samples: Vec<Sample>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

/// An image as a format's reader found it.
struct Entry {
    /// The place in the file, for messages.
    place: String,
    image_id: String,
    file_name: String,
    captions: Vec<String>,
}

/// Reads the images and captions of `annotations`, whose files lie in the folder `images`.
///
/// # Errors
///
/// A file that can't be read or parsed, or an empty result. An entry that can't be used (an image
/// that is missing or lies outside the folder, an empty caption, an unknown or repeated image id)
/// is an error, or skipped and listed, as `options.on_error` says.
pub fn load(annotations: &Path, images: &Path, options: &LoadOptions) -> Result<Loaded, DataError> {
    let bytes = std::fs::read(annotations).map_err(DataError::io(annotations))?;
    let text = String::from_utf8(bytes).map_err(|error| DataError::Annotation {
        file: annotations.into(),
        field: format!("byte {}", error.utf8_error().valid_up_to()),
        reason: "is not UTF-8".into(),
    })?;
    let mut problems = Problems {
        file: annotations,
        on_error: options.on_error,
        skipped: Vec::new(),
    };
    let format = match options.format {
        Some(format) => format,
        None => detect(annotations, &text)?,
    };
    let entries = match format {
        Format::Coco => coco::read(annotations, &text, &mut problems)?,
        Format::Karpathy => karpathy::read(annotations, &text, options.split.as_deref())?,
        Format::Jsonl => jsonl::read(&text, &mut problems)?,
        Format::Lavis => lavis::read(annotations, &text)?,
    };
    let root = images.canonicalize().map_err(DataError::io(images))?;
    let mut seen = BTreeSet::new();
    let mut samples = Vec::with_capacity(entries.len());
    for entry in entries {
        let sample = match check(entry, images, &root, options, &mut problems)? {
            Some(sample) => sample,
            None => continue,
        };
        if seen.insert(sample.image_id.clone()) {
            samples.push(sample);
        } else {
            let place = format!("image id {}", sample.image_id);
            problems.note(&place, "occurs twice")?;
        }
    }
    if samples.is_empty() {
        if let Some(first) = problems.skipped.first() {
            return Err(DataError::Annotation {
                file: annotations.into(),
                field: first.what.clone(),
                reason: format!("{}; nothing usable is left", first.reason),
            });
        }
        return Err(DataError::EmptySplit {
            file: annotations.into(),
            split: options.split.clone().unwrap_or_else(|| "all".into()),
        });
    }
    Ok(Loaded {
        samples,
        skipped: problems.skipped,
    })
}

/// Entries that can't be used: errors, or listed.
struct Problems<'a> {
    file: &'a Path,
    on_error: OnError,
    skipped: Vec<Skipped>,
}

impl Problems<'_> {
    fn note(&mut self, place: &str, reason: &str) -> Result<(), DataError> {
        match self.on_error {
            OnError::Fail => Err(DataError::Annotation {
                file: self.file.into(),
                field: place.to_string(),
                reason: reason.to_string(),
            }),
            OnError::Skip => {
                self.skipped.push(Skipped {
                    what: format!("{}: {place}", self.file.display()),
                    reason: reason.to_string(),
                });
                Ok(())
            }
        }
    }
}

fn check(
    entry: Entry,
    images: &Path,
    root: &Path,
    options: &LoadOptions,
    problems: &mut Problems,
) -> Result<Option<Sample>, DataError> {
    let path = match resolve(images, root, &entry.file_name) {
        Ok(path) => path,
        Err(reason) => {
            let place = format!("{} (`{}`)", entry.place, entry.file_name);
            problems.note(&place, &reason)?;
            return Ok(None);
        }
    };
    let mut captions = Vec::with_capacity(entry.captions.len());
    for (index, caption) in entry.captions.iter().enumerate() {
        let caption = caption.trim();
        if caption.is_empty() {
            problems.note(&format!("{} caption {index}", entry.place), "is empty")?;
        } else {
            captions.push(caption.to_string());
        }
    }
    if captions.is_empty() && options.require_captions {
        problems.note(&entry.place, "the image has no caption")?;
        return Ok(None);
    }
    Ok(Some(Sample {
        image_id: entry.image_id,
        file_name: entry.file_name,
        path,
        captions,
    }))
}

/// Tells the format from the content; the extension only decides for JSONL.
fn detect(file: &Path, text: &str) -> Result<Format, DataError> {
    let extension = file.extension().and_then(|extension| extension.to_str());
    if matches!(extension, Some("jsonl" | "ndjson")) {
        return Ok(Format::Jsonl);
    }
    if text.trim_start().starts_with('[') {
        return Ok(Format::Lavis);
    }
    #[derive(Deserialize)]
    struct Shape {
        images: Option<serde::de::IgnoredAny>,
        annotations: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_str::<Shape>(text) {
        Ok(Shape {
            images: Some(_),
            annotations: Some(_),
        }) => Ok(Format::Coco),
        Ok(Shape {
            images: Some(_),
            annotations: None,
        }) => Ok(Format::Karpathy),
        Ok(_) if text.trim_start().lines().count() <= 1 => Ok(Format::Jsonl),
        Ok(_) => Err(DataError::Annotation {
            file: file.into(),
            field: "images".into(),
            reason:
                "is missing; the file is neither COCO captions, Karpathy JSON, a list nor JSONL"
                    .into(),
        }),
        // Several JSON values: lines.
        Err(error)
            if error.is_syntax() && text.trim_start().starts_with('{') && error.line() > 1 =>
        {
            match text
                .lines()
                .next()
                .map(serde_json::from_str::<serde::de::IgnoredAny>)
            {
                Some(Ok(_)) => Ok(Format::Jsonl),
                _ => Err(json_error(file, &error)),
            }
        }
        Err(error) => Err(json_error(file, &error)),
    }
}

fn json_error(file: &Path, error: &serde_json::Error) -> DataError {
    DataError::Annotation {
        file: file.into(),
        field: format!("line {} column {}", error.line(), error.column()),
        reason: error.to_string(),
    }
}

/// An id that is a number or a string.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

impl Id {
    fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

#[cfg(test)]
mod tests;
