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
        /// The entry and its field, for example `annotations[3].caption`, or the whole file.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// There is nothing to score against.
    #[error("there are no references")]
    NoReferences,
    /// Images have no reference caption.
    #[error("without a reference caption: {}", listed(ids))]
    ImagesWithoutReferences {
        /// The images.
        ids: Vec<String>,
    },
    /// Images that have references have no candidate.
    #[error("without a candidate caption: {}", listed(ids))]
    MissingCandidates {
        /// The images.
        ids: Vec<String>,
    },
    /// Images have no references in this set.
    #[error("not among the references: {}", listed(ids))]
    UnknownImages {
        /// The images.
        ids: Vec<String>,
    },
    /// What a metric needs is not there.
    #[error("{metric} can't be computed: {reason}")]
    Unavailable {
        /// The metric.
        metric: &'static str,
        /// What lacks, and where it comes from.
        reason: String,
    },
    /// Another program failed.
    #[error("{program} failed: {reason}", program = program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Its last words.
        reason: String,
    },
    /// A word that names no metric.
    #[error("unknown metric `{name}`; known are Bleu, METEOR, ROUGE_L, CIDEr, CIDErD, SPICE")]
    UnknownMetric {
        /// The word.
        name: String,
    },
}

/// The first few of `ids`, and how many there are.
fn listed(ids: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = if ids.len() == 1 {
        "image".into()
    } else {
        format!("{} images:", ids.len())
    };
    for (index, id) in ids.iter().take(SHOWN).enumerate() {
        text += if index == 0 { " `" } else { ", `" };
        text += id;
        text += "`";
    }
    if ids.len() > SHOWN {
        text += ", …";
    }
    text
}
