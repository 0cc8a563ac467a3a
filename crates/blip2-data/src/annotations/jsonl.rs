//! JSONL: an object a line.

use serde::Deserialize;

use super::join::Joined;
use super::{Entry, Id, Problems};
use crate::DataError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    image: String,
    image_id: Option<Id>,
    caption: Option<String>,
    captions: Option<Vec<String>>,
}

pub(super) fn read(text: &str, problems: &mut Problems) -> Result<Vec<Entry>, DataError> {
    let mut joined = Joined::default();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = format!("line {}", index + 1);
        let line: Line = match serde_json::from_str(line) {
            Ok(line) => line,
            Err(error) => {
                problems.note(&place, &error.to_string())?;
                continue;
            }
        };
        let captions = line.captions.into_iter().flatten().chain(line.caption);
        joined.add(place, line.image, line.image_id, captions);
    }
    Ok(joined.entries)
}
