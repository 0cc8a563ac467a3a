//! Document frequencies from elsewhere: how many images of another set hold each n-gram.

mod pickle;

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::EvalError;
use crate::formats::{read_bytes, read_json, wrong};
use crate::ngrams::MAX_N;

/// How many images of a set hold each n-gram in a reference.
///
/// CIDEr-D with the frequencies of a large set (the training split of COCO, say) does not depend on
/// which images are scored together.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentFrequencies {
    /// Images of the set.
    images: f64,
    /// By the words of the n-gram, with spaces between them.
    counts: HashMap<String, f64>,
}

/// The same names as in the pickles.
#[derive(Deserialize)]
#[serde(expecting = "an object with `ref_len` and `document_frequency`")]
struct Json {
    ref_len: f64,
    document_frequency: HashMap<String, f64>,
}

impl DocumentFrequencies {
    /// Reads a file of document frequencies: a pickle as the CIDEr-D code of its authors takes it
    /// (`coco-val-df.p`: `ref_len`, the number of images, and `document_frequency` by tuples of
    /// words), or JSON with the same two names, where spaces stand between the words. No code of a
    /// pickle is run.
    ///
    /// # Errors
    ///
    /// A file that can't be read or is something else, counts that are not positive and finite,
    /// n-grams of other than one to four words.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let is_json = path
            .extension()
            .is_some_and(|extension| extension == "json");
        let (images, counts) = if is_json {
            let json: Json = read_json(path)?;
            (json.ref_len, json.document_frequency)
        } else {
            pickle::read(&read_bytes(path)?)
                .map_err(|reason| wrong(path, "the whole file", &reason))?
        };
        if !(images.is_finite() && images >= 1.0) {
            let reason = format!("is {images}, but should be the number of images");
            return Err(wrong(path, "ref_len", &reason));
        }
        if counts.is_empty() {
            return Err(wrong(path, "document_frequency", "is empty"));
        }
        for (ngram, count) in &counts {
            let place = || format!("document_frequency[\"{ngram}\"]");
            if !(count.is_finite() && *count >= 0.0) {
                return Err(wrong(
                    path,
                    &place(),
                    &format!("is {count}, which is no count"),
                ));
            }
            let words = ngram.split(' ').count();
            if ngram.is_empty() || words > MAX_N {
                return Err(wrong(path, &place(), "is no n-gram of one to four words"));
            }
        }
        Ok(Self { images, counts })
    }

    /// The number of images.
    pub(crate) fn images(&self) -> f64 {
        self.images
    }

    /// n-grams and in how many images they are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.counts
            .iter()
            .map(|(ngram, count)| (ngram.as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn json_is_read_and_what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("df.json");
        fs::write(
            &path,
            r#"{"ref_len": 10, "document_frequency": {"a": 3, "a dog": 2}}"#,
        )
        .unwrap();
        let read = DocumentFrequencies::read(&path).unwrap();
        assert_eq!((read.images, read.counts["a dog"]), (10.0, 2.0));
        for (text, expected) in [
            (
                r#"{"ref_len": 0, "document_frequency": {"a": 3}}"#,
                "ref_len: is 0",
            ),
            (
                r#"{"ref_len": 1, "document_frequency": {}}"#,
                "document_frequency: is empty",
            ),
            (
                r#"{"ref_len": 1, "document_frequency": {"a": -1}}"#,
                "is -1",
            ),
            (
                r#"{"ref_len": 1, "document_frequency": {"a b c d e": 1}}"#,
                "one to four words",
            ),
            (r#"{"document_frequency": {"a": 1}}"#, "ref_len"),
            ("[1]", "expected an object with `ref_len`"),
        ] {
            fs::write(&path, text).unwrap();
            let error = DocumentFrequencies::read(&path).unwrap_err().to_string();
            assert!(
                error.contains("df.json") && error.contains(expected),
                "{error}"
            );
        }
        let pickle = folder.path().join("df.p");
        fs::write(&pickle, "no pickle").unwrap();
        let error = DocumentFrequencies::read(&pickle).unwrap_err().to_string();
        assert!(error.contains("df.p"), "{error}");
    }
}
