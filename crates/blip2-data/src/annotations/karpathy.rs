//! Karpathy's split files (`dataset_coco.json`, `dataset_flickr30k.json`).

use std::path::Path;

use serde::Deserialize;

use super::{Entry, Id, json_error};
use crate::DataError;

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    filename: String,
    #[serde(default)]
    filepath: String,
    imgid: Id,
    cocoid: Option<Id>,
    split: String,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

/// Reads the images of `split`, or all. `restval` belongs to `train`, as everybody uses it.
pub(super) fn read(file: &Path, text: &str, split: Option<&str>) -> Result<Vec<Entry>, DataError> {
    let parsed: File = serde_json::from_str(text).map_err(|error| json_error(file, &error))?;
    let chosen = |image: &Image| match split {
        None => true,
        Some("train") => image.split == "train" || image.split == "restval",
        Some(split) => image.split == split,
    };
    Ok(parsed
        .images
        .into_iter()
        .enumerate()
        .filter(|(_, image)| chosen(image))
        .map(|(index, image)| Entry {
            place: format!("images[{index}]"),
            image_id: image.cocoid.unwrap_or(image.imgid).into_text(),
            file_name: if image.filepath.is_empty() {
                image.filename
            } else {
                format!("{}/{}", image.filepath, image.filename)
            },
            captions: image
                .sentences
                .into_iter()
                .map(|sentence| sentence.raw)
                .collect(),
        })
        .collect())
}
