//! Entries of one image, joined: a caption an entry works as well as an image an entry.

use std::collections::BTreeMap;

use super::{Entry, Id};

/// The images so far, in the order in which they came.
#[derive(Default)]
pub(super) struct Joined {
    pub entries: Vec<Entry>,
    by_name: BTreeMap<String, usize>,
}

impl Joined {
    /// Adds `captions` to the image of that name.
    pub fn add(
        &mut self,
        place: String,
        image: String,
        image_id: Option<Id>,
        captions: impl Iterator<Item = String>,
    ) {
        if let Some(&entry) = self.by_name.get(&image) {
            self.entries[entry].captions.extend(captions);
            return;
        }
        self.by_name.insert(image.clone(), self.entries.len());
        self.entries.push(Entry {
            place,
            image_id: image_id.map_or_else(|| image.clone(), Id::into_text),
            file_name: image,
            captions: captions.collect(),
        });
    }
}
