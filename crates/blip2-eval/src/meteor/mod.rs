//! METEOR 1.5 for English, as pycocoevalcap runs it (`-l en -norm`).
//!
//! Denkowski and Lavie, 2014. Words of candidate and reference are aligned by their form, their stem
//! (Snowball's English stemmer), shared synonym sets of WordNet, and a table of paraphrases. With
//! P and R the shares of matched words (weighted by how they match, and content words against
//! function words by δ = 0.75), the score is
//!
//! `F = P·R / (α·P + (1 − α)·R)`, α = 0.85, times `1 − γ·(chunks / matches)^β`, β = 0.2, γ = 0.6.
//!
//! The reference with the highest score counts. The score of a set is not the mean of its images'
//! scores: their counts are added up, and scored.

mod align;
mod data;
mod inflate;
mod lexicon;
mod normalize;
mod paraphrases;
mod stats;
mod synonyms;

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

pub use data::MeteorData;

use crate::EvalError;
use align::{Candidate, align};
use lexicon::{Lexicon, Sentence};
use normalize::normalize;
use paraphrases::Paraphrases;
use stats::Stats;

/// What separates the sentences that pycocoevalcap sends to METEOR.
const SEPARATOR: &str = "|||";

/// References, ready to score candidates against them.
#[derive(Debug, Clone)]
pub(crate) struct Meteor {
    data: Arc<MeteorData>,
    paraphrases: Arc<Paraphrases>,
    lexicon: Lexicon,
    references: BTreeMap<String, Vec<Sentence>>,
}

impl Meteor {
    /// Takes tokenized captions, with spaces between the tokens, by image.
    pub fn new<'a>(
        data: Arc<MeteorData>,
        references: impl IntoIterator<Item = (&'a str, &'a [String])>,
    ) -> Result<Self, EvalError> {
        let references: Vec<(&str, &[String])> = references.into_iter().collect();
        let tokens: Vec<Vec<Vec<String>>> = references
            .par_iter()
            .map(|(_, lines)| {
                let parts = lines.iter().flat_map(|line| line.split(SEPARATOR));
                parts
                    .map(|part| normalize(trim(part), &data.prefixes))
                    .collect()
            })
            .collect();
        let known = tokens.iter().flatten().flatten().map(String::as_str);
        let paraphrases = data.paraphrases(known)?;
        let mut lexicon = Lexicon::default();
        let references = references
            .iter()
            .zip(&tokens)
            .map(|((id, _), sentences)| {
                let sentences = sentences
                    .iter()
                    .map(|tokens| lexicon.sentence(tokens, &data, &paraphrases));
                ((*id).to_string(), sentences.collect())
            })
            .collect();
        Ok(Self {
            data,
            paraphrases: Arc::new(paraphrases),
            lexicon,
            references,
        })
    }

    /// Those of its images that `ids` names.
    pub fn subset<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Self {
        let references = ids.into_iter().filter_map(|id| {
            let (id, sentences) = self.references.get_key_value(id)?;
            Some((id.clone(), sentences.clone()))
        });
        Self {
            data: Arc::clone(&self.data),
            paraphrases: Arc::clone(&self.paraphrases),
            lexicon: self.lexicon.clone(),
            references: references.collect(),
        }
    }

    /// The scores of tokenized candidates, in their order, and that of all together.
    pub fn score(&self, candidates: &[(&str, &str)]) -> (Vec<f64>, f64) {
        let tokens: Vec<Vec<String>> = candidates
            .par_iter()
            .map(|(_, line)| {
                let line = line.replace(SEPARATOR, "").replace("  ", " ");
                normalize(trim(&line), &self.data.prefixes)
            })
            .collect();
        let mut lexicon = self.lexicon.clone();
        let sentences: Vec<(&[Sentence], Sentence)> = candidates
            .iter()
            .zip(&tokens)
            .map(|((id, _), tokens)| {
                let references = self.references.get(*id).map_or(&[][..], Vec::as_slice);
                (
                    references,
                    lexicon.sentence(tokens, &self.data, &self.paraphrases),
                )
            })
            .collect();
        let stats: Vec<Stats> = sentences
            .par_iter()
            .map(|(references, candidate)| self.best(candidate, references))
            .collect();
        let mut total = Stats::default();
        for stats in &stats {
            total.add(stats);
        }
        (stats.iter().map(Stats::score).collect(), total.score())
    }

    /// The counts against the reference that gives the highest score, the first of equals.
    fn best(&self, candidate: &Sentence, references: &[Sentence]) -> Stats {
        let candidate = Candidate::new(candidate, &self.paraphrases);
        let mut best = (Stats::default(), -1.0);
        for reference in references {
            let matches = align(&candidate, reference, &self.paraphrases);
            let stats = Stats::new(candidate.words, reference, &matches);
            let score = stats.score();
            if score > best.1 {
                best = (stats, score);
            }
        }
        best.0
    }
}

/// Without control characters and spaces at the ends.
fn trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}
