//! COCO instances: boxes with categories, for training an image encoder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Id, json_error, resolve};
use crate::DataError;

/// The images of an instances file with their boxes.
#[derive(Debug, Clone)]
pub struct Instances {
    /// Category names in the order of the file; boxes index into it.
    pub categories: Vec<String>,
    background: Vec<bool>,
    /// The images in the order of the file.
    pub images: Vec<LabelledImage>,
}

/// An image with its boxes.
#[derive(Debug, Clone)]
pub struct LabelledImage {
    /// The id in the file.
    pub image_id: String,
    /// The file name as the annotation file has it.
    pub file_name: String,
    /// Where the file lies.
    pub path: PathBuf,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The boxes.
    pub boxes: Vec<LabelledBox>,
}

/// A box with its category.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledBox {
    /// Index into [`Instances::categories`].
    pub category: usize,
    /// Left, top, width, height, in pixels.
    pub bbox: [f64; 4],
}

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: Id,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: Id,
    category_id: u64,
    bbox: [f64; 4],
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
    #[serde(default)]
    supercategory: String,
}

impl Instances {
    /// Reads `file`, whose images lie in the folder `images`.
    ///
    /// # Errors
    ///
    /// A file that can't be read or parsed, an image that is missing or lies outside the folder,
    /// or an annotation of an unknown image or category.
    pub fn read(file: &Path, images: &Path) -> Result<Self, DataError> {
        let text = std::fs::read_to_string(file).map_err(DataError::io(file))?;
        let parsed: File = serde_json::from_str(&text).map_err(|error| json_error(file, &error))?;
        let wrong = |field: String, reason: String| DataError::Annotation {
            file: file.into(),
            field,
            reason,
        };
        let root = images.canonicalize().map_err(DataError::io(images))?;
        let mut labelled = Vec::with_capacity(parsed.images.len());
        let mut by_id = BTreeMap::new();
        for (index, image) in parsed.images.into_iter().enumerate() {
            let path = resolve(images, &root, &image.file_name)
                .map_err(|reason| wrong(format!("images[{index}].file_name"), reason))?;
            by_id.insert(image.id.clone(), index);
            labelled.push(LabelledImage {
                image_id: image.id.into_text(),
                file_name: image.file_name,
                path,
                width: image.width,
                height: image.height,
                boxes: Vec::new(),
            });
        }
        let category_index: BTreeMap<u64, usize> = parsed
            .categories
            .iter()
            .enumerate()
            .map(|(index, category)| (category.id, index))
            .collect();
        for (index, annotation) in parsed.annotations.into_iter().enumerate() {
            let image = by_id.get(&annotation.image_id).ok_or_else(|| {
                let reason = "is not the id of an image".to_string();
                wrong(format!("annotations[{index}].image_id"), reason)
            })?;
            let category = category_index.get(&annotation.category_id).ok_or_else(|| {
                let reason = format!("{} is no category", annotation.category_id);
                wrong(format!("annotations[{index}].category_id"), reason)
            })?;
            labelled[*image].boxes.push(LabelledBox {
                category: *category,
                bbox: annotation.bbox,
            });
        }
        Ok(Self {
            background: parsed
                .categories
                .iter()
                .map(|category| category.supercategory == "background")
                .collect(),
            categories: parsed
                .categories
                .into_iter()
                .map(|category| category.name)
                .collect(),
            images: labelled,
        })
    }

    /// Whether a category is what lies behind the objects.
    pub fn is_background(&self, category: usize) -> bool {
        self.background[category]
    }
}
