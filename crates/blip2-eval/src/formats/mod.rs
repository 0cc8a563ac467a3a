//! The files that captions and references come in.

mod coco;
mod karpathy;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Visitor};

pub use coco::read_coco_results;

use crate::{Captions, EvalError};

/// The captions of a data set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// By image id.
    pub captions: Captions,
    /// The images of each domain, where the file names any (NoCaps: `in-domain`, `near-domain`,
    /// `out-domain`).
    pub domains: BTreeMap<String, Vec<String>>,
}

/// What annotation files hold, told apart by their fields.
#[derive(serde::Deserialize)]
#[serde(
    expecting = "an object with `annotations` (COCO, NoCaps) or `images` with sentences (Karpathy)"
)]
struct Fields {
    annotations: Option<serde::de::IgnoredAny>,
    images: Option<serde::de::IgnoredAny>,
}

/// Reads references: a COCO annotation file, that of NoCaps with domains, or Karpathy's JSON (COCO,
/// Flickr8k, Flickr30k), of which `split` is taken, or else `test`.
///
/// Karpathy's images have the id `cocoid` where there is one, else `imgid`.
///
/// # Errors
///
/// A file that can't be read or parsed, that holds no caption, or lists an image without a caption.
pub fn read_references(path: &Path, split: Option<&str>) -> Result<References, EvalError> {
    let bytes = read_bytes(path)?;
    let fields: Fields = parse_json(path, &bytes)?;
    match (fields.annotations, fields.images) {
        (Some(_), _) if split.is_some() => Err(wrong(
            path,
            "the whole file",
            "is a COCO annotation file, which has no splits",
        )),
        (Some(_), _) => coco::references(path, parse_json(path, &bytes)?),
        (None, Some(_)) => karpathy::references(path, parse_json(path, &bytes)?, split),
        (None, None) => Err(wrong(
            path,
            "the whole file",
            "has neither `annotations` nor `images`: COCO, NoCaps and Karpathy files are known",
        )),
    }
}

/// A number or a string; both become text.
struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;

        impl Visitor<'_> for IdVisitor {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an image id: a whole number or a string")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_str<E: de::Error>(self, id: &str) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }
        }

        deserializer.deserialize_any(IdVisitor)
    }
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, EvalError> {
    parse_json(path, &read_bytes(path)?)
}

/// Parses the `bytes` of the file `path`.
fn parse_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, EvalError> {
    if bytes.trim_ascii().is_empty() {
        return Err(wrong(path, "the whole file", "is empty"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = match error.path().to_string() {
            path if path == "." => "the whole file".to_string(),
            path => path,
        };
        wrong(path, &place, &error.inner().to_string())
    })?;
    json.end()
        .map_err(|error| wrong(path, "behind the data", &error.to_string()))?;
    Ok(parsed)
}

pub(crate) fn wrong(path: &Path, place: &str, reason: &str) -> EvalError {
    EvalError::Format {
        path: path.into(),
        place: place.into(),
        reason: reason.into(),
    }
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, EvalError> {
    std::fs::read(path).map_err(|source| EvalError::Io {
        path: path.into(),
        source,
    })
}
