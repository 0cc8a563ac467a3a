//! JSONL: an object a line.

use std::collections::BTreeMap;

use serde::Deserialize;

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

/// Lines of the same image are joined, so that one caption a line works as well.
pub(super) fn read(text: &str, problems: &mut Problems) -> Result<Vec<Entry>, DataError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
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
        match by_name.get(&line.image) {
            Some(&entry) => entries[entry].captions.extend(captions),
            None => {
                by_name.insert(line.image.clone(), entries.len());
                entries.push(Entry {
                    place,
                    image_id: line
                        .image_id
                        .map_or_else(|| line.image.clone(), Id::into_text),
                    file_name: line.image,
                    captions: captions.collect(),
                });
            }
        }
    }
    Ok(entries)
}
