//! A list of images: an object a line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use super::{Item, Listing, Part, Place};
use crate::DataError;

#[derive(Deserialize)]
#[serde(expecting = "an object with `image` or `file_name`")]
struct Line {
    image: Option<String>,
    file_name: Option<String>,
    prompt: Option<String>,
}

/// Adds the images of `file` that are in `part`, in the order of its lines. Only those are kept, so that
/// a task needs no more memory than its part.
pub(super) fn list(
    file: &Path,
    image_root: Option<&Path>,
    part: Part,
    listing: &mut Listing,
) -> Result<(), DataError> {
    let root = image_root.or(file.parent()).unwrap_or(Path::new(""));
    let reader = BufReader::new(File::open(file).map_err(DataError::io(file))?);
    let mut items = 0;
    for (index, line) in reader.split(b'\n').enumerate() {
        let line = line.map_err(DataError::io(file))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let is_ours = part.has(items);
        items += 1;
        if !is_ours {
            continue;
        }
        let field = format!("line {}", index + 1);
        match item(&line, root) {
            Ok(item) => listing.add(item, file, &field)?,
            Err(reason) => listing.problem(DataError::Annotation {
                file: file.into(),
                field,
                reason,
            })?,
        }
    }
    if items == 0 {
        return Err(DataError::EmptyCollection {
            path: file.into(),
            reason: "it has no line",
        });
    }
    Ok(())
}

fn item(line: &[u8], root: &Path) -> Result<Item, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let name = match (line.image, line.file_name) {
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => return Err("has neither `image` nor `file_name`".into()),
        (Some(_), Some(_)) => return Err("has both `image` and `file_name`".into()),
    };
    Ok(Item {
        place: Place::File(root.join(&name)),
        prompt: line.prompt,
        name,
    })
}
