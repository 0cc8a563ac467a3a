//! COCO caption scores in pure Rust: strings in, scores out; no model, no tensors.
//!
//! A [`Scorer`] tokenizes the references and counts their n-grams once, and then scores any number
//! of candidate sets against them:
//!
//! ```
//! use blip2_eval::{Captions, Metric, Scorer};
//!
//! let references: Captions = [
//!     ("1".to_string(), vec!["A dog runs on grass.".to_string(), "a running dog".to_string()]),
//!     ("2".to_string(), vec!["Two cats sleep.".to_string()]),
//! ]
//! .into();
//! let candidates = [
//!     ("1".to_string(), "a dog runs on grass".to_string()),
//!     ("2".to_string(), "two dogs sleep".to_string()),
//! ]
//! .into();
//! let report = Scorer::new(&references)?.score(&candidates, &[Metric::Bleu, Metric::Cider])?;
//! assert!(report.scores.get("Bleu_1").unwrap() > 0.8);
//! assert!(report.per_image["1"].get("CIDEr") > report.per_image["2"].get("CIDEr"));
//! # Ok::<(), blip2_eval::EvalError>(())
//! ```

mod bleu;
mod cider;
mod document_frequency;
mod error;
mod formats;
mod meteor;
mod ngrams;
mod ptb_tokenizer;
mod report;
mod retrieval;
mod rouge_l;
mod scorer;
mod spice;

use std::collections::BTreeMap;

pub use document_frequency::DocumentFrequencies;
pub use error::EvalError;
pub use formats::{References, read_coco_results, read_references};
pub use meteor::MeteorData;
pub use ptb_tokenizer::tokenize;
pub use report::{Metric, Report, Scores};
pub use retrieval::{Recalls, RetrievalScores};
pub use scorer::Scorer;
pub use spice::Spice;

/// Captions by image id; ids are opaque.
pub type Captions = BTreeMap<String, Vec<String>>;
