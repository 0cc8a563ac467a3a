//! LAVIS's files (`vg_caption.json`, `coco_karpathy_train.json`): a list of images with captions.

use std::path::Path;

use serde::Deserialize;

use super::join::Joined;
use super::{Entry, Id, json_error};
use crate::DataError;

/// What else LAVIS's files hold is passed over.
#[derive(Deserialize)]
struct Record {
    image: String,
    image_id: Option<Id>,
    caption: Captions,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`caption` must be a text or a list of texts")]
enum Captions {
    One(String),
    Many(Vec<String>),
}

pub(super) fn read(file: &Path, text: &str) -> Result<Vec<Entry>, DataError> {
    let records: Vec<Record> =
        serde_json::from_str(text).map_err(|error| json_error(file, &error))?;
    let mut joined = Joined::default();
    for (index, record) in records.into_iter().enumerate() {
        let captions = match record.caption {
            Captions::One(caption) => vec![caption],
            Captions::Many(captions) => captions,
        };
        let place = format!("[{index}]");
        joined.add(place, record.image, record.image_id, captions.into_iter());
    }
    Ok(joined.entries)
}
