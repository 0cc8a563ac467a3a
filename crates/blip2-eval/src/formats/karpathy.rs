//! Karpathy's JSON files: images with their sentences and splits.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Id, References, wrong};
use crate::{Captions, EvalError};

/// The split that papers report.
const DEFAULT_SPLIT: &str = "test";

#[derive(serde::Deserialize)]
pub(super) struct File {
    images: Vec<Image>,
}

#[derive(serde::Deserialize)]
struct Image {
    imgid: Id,
    cocoid: Option<Id>,
    split: String,
    sentences: Vec<Sentence>,
}

#[derive(serde::Deserialize)]
struct Sentence {
    raw: String,
}

/// The captions of one split.
pub(super) fn references(
    path: &Path,
    parsed: File,
    split: Option<&str>,
) -> Result<References, EvalError> {
    let split = split.unwrap_or(DEFAULT_SPLIT);
    let mut captions = Captions::new();
    let mut splits: BTreeMap<String, usize> = BTreeMap::new();
    for (index, image) in parsed.images.into_iter().enumerate() {
        *splits.entry(image.split.clone()).or_default() += 1;
        if image.split != split {
            continue;
        }
        let id = image.cocoid.unwrap_or(image.imgid).0;
        let place = |field: &str| format!("images[{index}].{field}");
        if image.sentences.is_empty() {
            let reason = format!("image `{id}` has no caption");
            return Err(wrong(path, &place("sentences"), &reason));
        }
        let sentences = image
            .sentences
            .into_iter()
            .map(|sentence| sentence.raw)
            .collect();
        if captions.insert(id.clone(), sentences).is_some() {
            return Err(wrong(
                path,
                &place("imgid"),
                &format!("image `{id}` occurs twice"),
            ));
        }
    }
    if captions.is_empty() {
        let known: Vec<String> = splits
            .into_iter()
            .map(|(name, count)| format!("{name} ({count})"))
            .collect();
        let reason = format!(
            "no image is in the split `{split}`; there are: {}",
            known.join(", ")
        );
        return Err(wrong(path, "images", &reason));
    }
    Ok(References {
        captions,
        domains: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::read_references;

    #[test]
    fn a_split_of_flickr30k_and_of_coco_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataset.json");
        let image = |ids: &str, split: &str| {
            format!(
                r#"{{{ids}, "split": "{split}", "filename": "x.jpg", "sentences": [{{"raw": "A dog.", "tokens": ["a", "dog"]}}, {{"raw": "Dog"}}]}}"#
            )
        };
        let write = |images: &[String]| {
            let text = format!(
                r#"{{"images": [{}], "dataset": "flickr30k"}}"#,
                images.join(", ")
            );
            fs::write(&path, text).unwrap();
        };
        let (flickr, coco) = (r#""imgid": 3"#, r#""imgid": 0, "cocoid": 391895"#);
        write(&[
            image(flickr, "test"),
            image(coco, "val"),
            image(r#""imgid": 4"#, "test"),
        ]);
        let test = read_references(&path, None).unwrap();
        assert_eq!(test.captions.keys().collect::<Vec<_>>(), ["3", "4"]);
        assert_eq!(test.captions["3"], ["A dog.", "Dog"]);
        let val = read_references(&path, Some("val")).unwrap();
        assert_eq!(val.captions.keys().collect::<Vec<_>>(), ["391895"]);
        let error = read_references(&path, Some("dev")).unwrap_err().to_string();
        assert!(
            error.contains("split `dev`; there are: test (2), val (1)"),
            "{error}"
        );
        write(&[image(flickr, "test"), image(flickr, "test")]);
        let error = read_references(&path, None).unwrap_err().to_string();
        assert!(
            error.contains("images[1].imgid: image `3` occurs twice"),
            "{error}"
        );
    }

    #[test]
    fn nocaps_has_domains() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nocaps_val.json");
        let text = r#"{"licenses": [], "info": {}, "images": [
            {"id": 0, "open_images_id": "0013", "domain": "in-domain", "file_name": "0013.jpg"},
            {"id": 1, "open_images_id": "0014", "domain": "out-domain", "file_name": "0014.jpg"}],
            "annotations": [{"image_id": 0, "id": 0, "caption": "a"}, {"image_id": 1, "id": 1, "caption": "b"}]}"#;
        fs::write(&path, text).unwrap();
        let references = read_references(&path, None).unwrap();
        assert_eq!(references.domains["in-domain"], ["0"]);
        assert_eq!(references.domains["out-domain"], ["1"]);
        let error = read_references(&path, Some("val")).unwrap_err().to_string();
        assert!(error.contains("has no splits"), "{error}");
    }
}
