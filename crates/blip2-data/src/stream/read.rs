//! The bytes of a shard's sample: its image, its caption.

use std::path::PathBuf;

use serde_json::Value;

use super::files::OpenFiles;
use super::shard::Span;
use super::shards::Place;
use super::tar::read_at;
use crate::DataError;

/// An image file's length; the largest photographs have a fifth of it.
pub(crate) const MAX_IMAGE: u64 = 256 << 20;

/// A caption file's length.
const MAX_CAPTION: u64 = 16 << 20;

/// The field of a caption, as img2dataset writes it.
const CAPTION_FIELD: &str = "caption";

impl Place {
    /// What the sample is called in messages: its shard, and its key.
    pub fn name(&self) -> PathBuf {
        self.shard.path.join(self.sample.key.as_str())
    }

    /// The image as it is in the shard.
    ///
    /// # Errors
    ///
    /// If it can't be read.
    pub fn image(&self, files: &OpenFiles) -> Result<Vec<u8>, DataError> {
        self.bytes(files, self.sample.image, MAX_IMAGE)
    }

    /// The captions, trimmed; at least one, and none is empty. `field` is where a JSON object has
    /// them.
    ///
    /// # Errors
    ///
    /// If they can't be read, or there is none.
    pub fn captions(
        &self,
        files: &OpenFiles,
        field: Option<&str>,
    ) -> Result<Vec<String>, DataError> {
        let bytes = self.bytes(files, self.sample.caption, MAX_CAPTION)?;
        let text = String::from_utf8(bytes).map_err(|_| self.error("its caption is no UTF-8"))?;
        let found = match self.sample.is_json {
            false => vec![text],
            true => self.json_captions(&text, field.unwrap_or(CAPTION_FIELD))?,
        };
        let trimmed = found.iter().map(|caption| caption.trim());
        let captions: Vec<String> = trimmed
            .filter(|caption| !caption.is_empty())
            .map(str::to_string)
            .collect();
        match captions.is_empty() {
            true => Err(self.error("its caption is empty")),
            false => Ok(captions),
        }
    }

    fn json_captions(&self, text: &str, field: &str) -> Result<Vec<String>, DataError> {
        let object: Value = serde_json::from_str(text)
            .map_err(|error| self.error(&format!("its .json: {error}")))?;
        let wrong = || self.error(&format!("its .json has no text in `{field}`"));
        match object.get(field) {
            Some(Value::String(caption)) => Ok(vec![caption.clone()]),
            Some(Value::Array(captions)) => captions
                .iter()
                .map(|caption| caption.as_str().map(str::to_string).ok_or_else(wrong))
                .collect(),
            _ => Err(wrong()),
        }
    }

    /// An error of this sample.
    pub fn error(&self, reason: &str) -> DataError {
        DataError::Shard {
            shard: self.shard.path.clone(),
            place: self.sample.key.to_string(),
            reason: reason.to_string(),
        }
    }

    fn bytes(&self, files: &OpenFiles, span: Span, limit: u64) -> Result<Vec<u8>, DataError> {
        if span.size > limit {
            let size = span.size;
            return Err(self.error(&format!("an entry has {size} bytes, more than {limit}")));
        }
        let file = files.open(&self.shard)?;
        let mut bytes = vec![0; span.size as usize];
        read_at(&file, &mut bytes, span.offset).map_err(DataError::io(self.name()))?;
        Ok(bytes)
    }
}
