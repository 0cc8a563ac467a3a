//! COCO annotation and result files.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{Captions, EvalError};

#[derive(Deserialize)]
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

#[derive(Deserialize)]
struct Caption {
    image_id: Id,
    caption: String,
}

#[derive(Deserialize)]
struct Annotations {
    annotations: Vec<Caption>,
}

/// Reads the captions of a COCO annotation file, by image id.
///
/// # Errors
///
/// A file that can't be read or parsed, or holds no caption.
pub fn read_coco_references(path: &Path) -> Result<Captions, EvalError> {
    let parsed: Annotations = read_json(path)?;
    if parsed.annotations.is_empty() {
        return Err(wrong(path, "annotations", "is empty"));
    }
    let mut captions = Captions::new();
    for annotation in parsed.annotations {
        captions
            .entry(annotation.image_id.into_text())
            .or_default()
            .push(annotation.caption);
    }
    Ok(captions)
}

/// Reads a COCO result file: one caption an image.
///
/// # Errors
///
/// A file that can't be read or parsed, or holds no caption, or two of an image.
pub fn read_coco_results(path: &Path) -> Result<BTreeMap<String, String>, EvalError> {
    let parsed: Vec<Caption> = read_json(path)?;
    if parsed.is_empty() {
        return Err(wrong(path, "the file", "holds no caption"));
    }
    let mut captions = BTreeMap::new();
    for (index, result) in parsed.into_iter().enumerate() {
        let id = result.image_id.into_text();
        if captions.insert(id.clone(), result.caption).is_some() {
            let place = format!("[{index}].image_id");
            return Err(wrong(path, &place, &format!("`{id}` occurs twice")));
        }
    }
    Ok(captions)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, EvalError> {
    let bytes = std::fs::read(path).map_err(|source| EvalError::Io {
        path: path.into(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        wrong(path, &place, &error.to_string())
    })
}

fn wrong(path: &Path, place: &str, reason: &str) -> EvalError {
    EvalError::Format {
        path: path.into(),
        place: place.into(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn bad_files_name_file_and_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let entry = r#"{"image_id": 1, "caption": "a"}"#;
        for (bytes, expected) in [
            (format!("[{entry}, {entry}]").into_bytes(), "[1].image_id"),
            (b"[]".to_vec(), "no caption"),
            (b"{}".to_vec(), "line 1"),
            (b"".to_vec(), "line 1"),
            (b"[{\"image_id\": 1, \"caption\": 3}]".to_vec(), "line 1"),
            (
                b"[{\"image_id\": 1, \"caption\": \"\xff\"}]".to_vec(),
                "line 1",
            ),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = read_coco_results(&path).unwrap_err().to_string();
            assert!(
                error.contains("results.json") && error.contains(expected),
                "{error}"
            );
        }
        fs::write(&path, format!("[{entry}, {}]", entry.replace('1', "\"x\""))).unwrap();
        assert_eq!(read_coco_results(&path).unwrap().len(), 2);
    }
}
