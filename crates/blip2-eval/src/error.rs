//! Errors of scoring.

use std::path::PathBuf;

use thiserror::Error;

/// Why captions can't be scored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file can't be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {place}: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The entry, or the line.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// There is nothing to score against.
    #[error("there are no references")]
    NoReferences,
    /// An image has no reference caption.
    #[error("image `{id}` has no reference caption")]
    NoReference {
        /// The image.
        id: String,
    },
    /// Images that have references have no candidate.
    #[error("{count} images have no candidate caption, the first is `{first}`")]
    MissingCandidates {
        /// How many.
        count: usize,
        /// The first.
        first: String,
    },
    /// Candidates of images that have no references.
    #[error("{count} candidates are of unknown images, the first is `{first}`")]
    UnknownImages {
        /// How many.
        count: usize,
        /// The first.
        first: String,
    },
    /// A word that names no metric.
    #[error("unknown metric `{name}`; known are Bleu, ROUGE_L, CIDEr, CIDErD")]
    UnknownMetric {
        /// The word.
        name: String,
    },
}
