//! The annotation files of the data set.

use serde_json::{Value, json};

use super::GENERATOR_VERSION;
use super::scene::{Background, CANVAS, CATEGORIES, Scene, Split, name};

/// One image as the annotation files know it.
pub(super) struct Written {
    pub id: usize,
    pub split: Split,
    pub file_name: String,
    pub scene: Scene,
    pub captions: Vec<String>,
}

fn header(images: &[&Written]) -> Value {
    let images: Vec<Value> = images
        .iter()
        .map(|image| {
            json!({"id": image.id, "file_name": image.file_name,
                   "width": CANVAS, "height": CANVAS, "license": 1})
        })
        .collect();
    json!({
        "info": {"description": "emoji-scenes", "version": GENERATOR_VERSION.to_string()},
        "licenses": [{"id": 1, "name": "CC-BY 4.0",
                      "url": "https://creativecommons.org/licenses/by/4.0/"}],
        "images": images,
    })
}

/// COCO captions.
pub(super) fn captions_json(images: &[&Written]) -> Value {
    let mut annotations = Vec::new();
    for image in images {
        for caption in &image.captions {
            annotations.push(json!({
                "id": annotations.len() + 1, "image_id": image.id, "caption": caption,
            }));
        }
    }
    let mut file = header(images);
    file["annotations"] = annotations.into();
    file
}

/// Boxes of the objects; the background is a category too, with the whole image as its box.
pub(super) fn instances_json(images: &[&Written]) -> Value {
    let category = |id: usize, name: String, kind: &str| json!({"id": id + 1, "name": name, "supercategory": kind});
    let backgrounds: Vec<Background> = Background::all().collect();
    let categories: Vec<Value> = (0..CATEGORIES.len())
        .map(|id| category(id, name(id), "object"))
        .chain(backgrounds.iter().enumerate().map(|(index, background)| {
            category(CATEGORIES.len() + index, background.name(), "background")
        }))
        .collect();
    let mut annotations = Vec::new();
    for image in images {
        let mut annotate = |category: usize, bbox: [i64; 4]| {
            annotations.push(json!({
                "id": annotations.len() + 1, "image_id": image.id, "category_id": category + 1,
                "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0,
            }));
        };
        let background = backgrounds
            .iter()
            .position(|background| *background == image.scene.background)
            .unwrap_or(0);
        annotate(CATEGORIES.len() + background, [0, 0, CANVAS, CANVAS]);
        for object in &image.scene.objects {
            let (x, y) = object.centre;
            let side = object.side;
            annotate(object.category, [x - side / 2, y - side / 2, side, side]);
        }
    }
    let mut file = header(images);
    file["categories"] = categories.into();
    file["annotations"] = annotations.into();
    file
}

/// All splits in Karpathy's layout.
pub(super) fn karpathy_json(written: &[Written]) -> Value {
    let mut sentence_id = 0;
    let images: Vec<Value> = written
        .iter()
        .map(|image| {
            let sentences: Vec<Value> = image
                .captions
                .iter()
                .map(|caption| {
                    sentence_id += 1;
                    let tokens: Vec<String> = caption
                        .split_whitespace()
                        .map(|token| token.trim_end_matches(',').to_string())
                        .collect();
                    json!({"raw": caption, "tokens": tokens, "imgid": image.id,
                           "sentid": sentence_id})
                })
                .collect();
            let ids: Vec<Value> = sentences
                .iter()
                .map(|sentence| sentence["sentid"].clone())
                .collect();
            json!({"filename": image.file_name, "filepath": "", "imgid": image.id,
                   "cocoid": image.id, "split": image.split.name(), "sentids": ids,
                   "sentences": sentences})
        })
        .collect();
    json!({"dataset": "emoji-scenes", "images": images})
}
