//! COCO annotation and result files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Visitor};

use crate::{Captions, EvalError};

/// A number or a string; both become text.
struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;

        impl Visitor<'_> for IdVisitor {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an image id: a whole number or a string")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_str<E: de::Error>(self, id: &str) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }
        }

        deserializer.deserialize_any(IdVisitor)
    }
}

#[derive(serde::Deserialize)]
#[serde(expecting = "an object with `image_id` and `caption`")]
struct Caption {
    image_id: Id,
    caption: String,
}

#[derive(serde::Deserialize)]
#[serde(expecting = "an object with `id`")]
struct Image {
    id: Id,
}

#[derive(serde::Deserialize)]
#[serde(expecting = "an object with `annotations`, as in COCO's caption annotation files")]
struct Annotations {
    annotations: Vec<Caption>,
    #[serde(default)]
    images: Vec<Image>,
}

/// Reads the captions of a COCO annotation file, by image id, in the order of the file.
///
/// # Errors
///
/// A file that can't be read or parsed, that holds no caption, or that lists an image under
/// `images` without a caption of it.
pub fn read_coco_references(path: &Path) -> Result<Captions, EvalError> {
    let parsed: Annotations = read_json(path)?;
    if parsed.annotations.is_empty() {
        return Err(wrong(path, "annotations", "is empty"));
    }
    let mut captions = Captions::new();
    for annotation in parsed.annotations {
        captions
            .entry(annotation.image_id.0)
            .or_default()
            .push(annotation.caption);
    }
    let without = |image: &Image| !captions.contains_key(&image.id.0);
    if let Some(index) = parsed.images.iter().position(without) {
        let place = format!("images[{index}].id");
        let reason = format!(
            "image `{}` has no caption in `annotations`",
            parsed.images[index].id.0
        );
        return Err(wrong(path, &place, &reason));
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
        return Err(wrong(path, "the whole file", "holds no caption"));
    }
    let mut seen = BTreeSet::new();
    for (index, result) in parsed.iter().enumerate() {
        let id = &result.image_id.0;
        if !seen.insert(id) {
            let place = format!("[{index}].image_id");
            return Err(wrong(path, &place, &format!("image `{id}` occurs twice")));
        }
    }
    Ok(parsed
        .into_iter()
        .map(|result| (result.image_id.0, result.caption))
        .collect())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, EvalError> {
    let bytes = std::fs::read(path).map_err(|source| EvalError::Io {
        path: path.into(),
        source,
    })?;
    if bytes.trim_ascii().is_empty() {
        return Err(wrong(path, "the whole file", "is empty"));
    }
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = match error.path().to_string() {
            path if path == "." => "the whole file".to_string(),
            path => path,
        };
        wrong(path, &place, &error.inner().to_string())
    })?;
    json.end()
        .map_err(|error| wrong(path, "behind the data", &error.to_string()))?;
    Ok(parsed)
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

    const ENTRY: &str = r#"{"image_id": 1, "caption": "a"}"#;

    #[test]
    fn bad_results_name_file_entry_and_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let error = read_coco_results(&path).unwrap_err();
        assert!(matches!(error, EvalError::Io { .. }), "{error}");
        for (bytes, place, reason) in [
            (
                format!("[{ENTRY}, {ENTRY}]").into_bytes(),
                "[1].image_id",
                "`1` occurs twice",
            ),
            (b"[]".to_vec(), "the whole file", "no caption"),
            (b"{}".to_vec(), "the whole file", "expected a sequence"),
            (b" \n".to_vec(), "the whole file", "is empty"),
            (
                format!("[{ENTRY}, {{\"image_id\": 2}}]").into_bytes(),
                "[1]",
                "missing field `caption`",
            ),
            (
                b"[{\"image_id\": 1.5, \"caption\": \"\"}]".to_vec(),
                "[0].image_id",
                "whole number",
            ),
            (
                b"[{\"image_id\": 1, \"caption\": 3}]".to_vec(),
                "[0].caption",
                "expected a string",
            ),
            (
                b"[{\"image_id\": 1, \"caption\": \"\xff\"}]".to_vec(),
                "[0].caption",
                "unicode",
            ),
            (
                format!("[{ENTRY}] x").into_bytes(),
                "behind the data",
                "trailing",
            ),
            (format!("[{ENTRY}").into_bytes(), "", "EOF"),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = read_coco_results(&path).unwrap_err().to_string();
            assert!(error.contains("results.json"), "{error}");
            assert!(
                error.contains(place) && error.contains(reason),
                "{error} / {place} / {reason}"
            );
        }
        fs::write(&path, format!("[{ENTRY}, {}]", ENTRY.replace('1', "\"x\""))).unwrap();
        assert_eq!(read_coco_results(&path).unwrap().len(), 2);
    }

    #[test]
    fn references_are_grouped_and_images_without_any_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captions.json");
        let write = |images: &str| {
            let text = format!(r#"{{"images": [{images}], "annotations": [{ENTRY}, {ENTRY}]}}"#);
            fs::write(&path, text).unwrap();
        };
        write(r#"{"id": "1", "file_name": "x.jpg"}"#);
        assert_eq!(read_coco_references(&path).unwrap()["1"].len(), 2);
        write(r#"{"id": 1}, {"id": 7}"#);
        let error = read_coco_references(&path).unwrap_err().to_string();
        assert!(error.contains("images[1].id: image `7`"), "{error}");
        for (text, expected) in [
            ("[]", "expected an object with `annotations`"),
            (r#"{"annotations": []}"#, "annotations: is empty"),
            (
                r#"{"annotations": [{"image_id": null}]}"#,
                "annotations[0].image_id: invalid type: null",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let error = read_coco_references(&path).unwrap_err().to_string();
            assert!(
                error.contains("captions.json") && error.contains(expected),
                "{error}"
            );
        }
    }
}
