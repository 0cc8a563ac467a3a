//! COCO annotation and result files, and NoCaps, which adds domains.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Id, References, read_json, wrong};
use crate::{Captions, EvalError};

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
    domain: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(expecting = "an object with `annotations`, as in COCO's caption annotation files")]
pub(super) struct Annotations {
    annotations: Vec<Caption>,
    #[serde(default)]
    images: Vec<Image>,
}

/// What an annotation file holds.
pub(super) fn references(path: &Path, parsed: Annotations) -> Result<References, EvalError> {
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
    let mut domains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for image in parsed.images {
        if let Some(domain) = image.domain {
            domains.entry(domain).or_default().push(image.id.0);
        }
    }
    Ok(References { captions, domains })
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::read_references;

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
        assert_eq!(read_references(&path, None).unwrap().captions["1"].len(), 2);
        write(r#"{"id": 1}, {"id": 7}"#);
        let error = read_references(&path, None).unwrap_err().to_string();
        assert!(error.contains("images[1].id: image `7`"), "{error}");
        for (text, expected) in [
            ("[]", "an object with `annotations`"),
            ("{}", "neither `annotations` nor `images`"),
            (r#"{"annotations": []}"#, "annotations: is empty"),
            (
                r#"{"annotations": [{"image_id": null}]}"#,
                "annotations[0].image_id: invalid type: null",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let error = read_references(&path, None).unwrap_err().to_string();
            assert!(
                error.contains("captions.json") && error.contains(expected),
                "{error}"
            );
        }
    }
}
