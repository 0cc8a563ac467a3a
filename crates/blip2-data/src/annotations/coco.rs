//! COCO captions JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{Entry, Id, Problems, json_error};
use crate::DataError;

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Image {
    id: Id,
    file_name: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: Id,
    caption: String,
}

pub(super) fn read(
    file: &Path,
    text: &str,
    problems: &mut Problems,
) -> Result<Vec<Entry>, DataError> {
    let parsed: File = serde_json::from_str(text).map_err(|error| json_error(file, &error))?;
    let mut entries = Vec::with_capacity(parsed.images.len());
    let mut by_id = BTreeMap::new();
    for (index, image) in parsed.images.into_iter().enumerate() {
        by_id.entry(image.id.clone()).or_insert(index);
        entries.push(Entry {
            place: format!("images[{index}]"),
            image_id: image.id.into_text(),
            file_name: image.file_name,
            captions: Vec::new(),
        });
    }
    for (index, annotation) in parsed.annotations.into_iter().enumerate() {
        match by_id.get(&annotation.image_id) {
            Some(&image) => entries[image].captions.push(annotation.caption),
            None => {
                let id = annotation.image_id.into_text();
                let place = format!("annotations[{index}].image_id");
                problems.note(&place, &format!("{id} is not the id of an image"))?;
            }
        }
    }
    Ok(entries)
}
