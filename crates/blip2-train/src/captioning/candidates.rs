//! The results of captioning tasks as candidates to score.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::CaptioningError;
use super::journal::each_line;
use crate::RunError;

/// The images of COCO's annotation files, and of Karpathy's.
#[derive(Deserialize)]
struct References {
    #[serde(default)]
    images: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    #[serde(alias = "filename")]
    file_name: Option<String>,
    cocoid: Option<Value>,
    imgid: Option<Value>,
    id: Option<Value>,
}

#[derive(Deserialize)]
struct Line {
    image: String,
    captions: Vec<Caption>,
}

#[derive(Deserialize)]
struct Caption {
    caption: String,
}

/// The best caption of each image in `files`, by the id that its file name has in `references`.
///
/// Names are compared whole, or else by what stands after the last slash.
///
/// # Errors
///
/// A file that can't be read, and an image that is not in `references` or that occurs twice.
pub fn read_candidates(
    files: &[PathBuf],
    references: &Path,
) -> Result<BTreeMap<String, String>, RunError> {
    let ids = ids(references)?;
    let mut candidates = BTreeMap::new();
    for path in files {
        let file = File::open(path).map_err(RunError::io(path))?;
        each_line(&file, path, |number, Line { image, captions }| {
            let wrong = |reason: String| CaptioningError::Line {
                file: path.clone(),
                line: number,
                reason,
            };
            let known = ids.get(&image).or_else(|| ids.get(base(&image)));
            let Some(Some(id)) = known else {
                let references = references.display();
                let reason = match known {
                    None => format!("`{image}` is no image of {references}"),
                    Some(_) => format!("`{image}` may be several images of {references}"),
                };
                return Err(wrong(reason));
            };
            let best = captions.into_iter().next();
            let best = best.ok_or_else(|| wrong(format!("`{image}` has no caption")))?;
            match candidates.insert(id.clone(), best.caption) {
                None => Ok(()),
                Some(_) => Err(wrong(format!("`{image}` occurs twice"))),
            }
        })?;
    }
    Ok(candidates)
}

/// Ids by whole names and by what stands after their last slash; none where that is of several.
fn ids(references: &Path) -> Result<HashMap<String, Option<String>>, RunError> {
    let text = fs::read(references).map_err(RunError::io(references))?;
    let parsed: References =
        serde_json::from_slice(&text).map_err(|error| CaptioningError::Line {
            file: references.into(),
            line: error.line(),
            reason: error.to_string(),
        })?;
    let mut ids: HashMap<String, Option<String>> = HashMap::new();
    for image in parsed.images {
        let id = match image.cocoid.or(image.imgid).or(image.id) {
            Some(Value::String(id)) => id,
            Some(id) => id.to_string(),
            None => continue,
        };
        let Some(name) = image.file_name else {
            continue;
        };
        let short = base(&name).to_string();
        if short != name {
            let known = ids.entry(short).or_insert_with(|| Some(id.clone()));
            if known.as_ref() != Some(&id) {
                *known = None;
            }
        }
        ids.insert(name, Some(id));
    }
    Ok(ids)
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}
