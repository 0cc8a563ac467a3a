//! CIDEr, as the COCO tools compute it.
//!
//! Vedantam et al., 2015: n-grams weighted by tf–idf, compared by cosine, averaged over n = 1…4 and
//! over the references, times 10. The document frequency of an n-gram is the number of images of
//! which a reference holds it. What the COCO tools call CIDEr has two parts of the paper's CIDEr-D:
//! a candidate's weights are clipped to the reference's, and a Gaussian (σ = 6) of the difference in
//! length multiplies the cosine. So does what they call CIDEr-D; here the two names give one value.

use std::collections::{HashMap, HashSet};

use crate::ngrams::{Counts, MAX_N, Ngram};

const SIGMA: f64 = 6.0;

/// In how many images' references each n-gram occurs.
#[derive(Debug, Clone, Default)]
pub(crate) struct DocumentFrequency {
    counts: HashMap<Ngram, f64>,
    /// ln(images)
    log_images: f64,
}

impl DocumentFrequency {
    pub fn new<'a>(images: impl Iterator<Item = &'a [Counts]>) -> Self {
        let mut frequency = Self::default();
        let mut total = 0;
        for references in images {
            total += 1;
            let ngrams: HashSet<&Ngram> = references
                .iter()
                .flat_map(|counts| counts.ngrams.iter().flat_map(HashMap::keys))
                .collect();
            for ngram in ngrams {
                *frequency.counts.entry(*ngram).or_default() += 1.0;
            }
        }
        frequency.log_images = f64::from(total).ln();
        frequency
    }

    /// The tf–idf vector of a sentence.
    pub fn vector(&self, counts: &Counts) -> Vector {
        let mut vector = Vector {
            // The COCO tools measure length in bigrams.
            length: counts.length.saturating_sub(1) as f64,
            ..Vector::default()
        };
        for n in 0..MAX_N {
            let mut squares = 0.0;
            for (ngram, &count) in &counts.ngrams[n] {
                let frequency = self.counts.get(ngram).copied().unwrap_or(0.0).max(1.0);
                let weight = f64::from(count) * (self.log_images - frequency.ln());
                vector.weights[n].insert(*ngram, weight);
                squares += weight * weight;
            }
            vector.norms[n] = squares.sqrt();
        }
        vector
    }
}

/// A sentence's tf–idf weights.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vector {
    weights: [HashMap<Ngram, f64>; MAX_N],
    norms: [f64; MAX_N],
    length: f64,
}

impl Vector {
    fn similarity(&self, reference: &Self) -> f64 {
        let delta = self.length - reference.length;
        let gaussian = (-(delta * delta) / (2.0 * SIGMA * SIGMA)).exp();
        let mut sum = 0.0;
        for n in 0..MAX_N {
            let mut product = 0.0;
            for (ngram, &weight) in &self.weights[n] {
                if let Some(&other) = reference.weights[n].get(ngram) {
                    product += weight.min(other) * other;
                }
            }
            let norms = self.norms[n] * reference.norms[n];
            if norms != 0.0 {
                product /= norms;
            }
            sum += product * gaussian;
        }
        sum / MAX_N as f64
    }
}

/// The score of one candidate.
pub(crate) fn cider(candidate: &Vector, references: &[Vector]) -> f64 {
    let sum: f64 = references
        .iter()
        .map(|reference| candidate.similarity(reference))
        .sum();
    sum / references.len().max(1) as f64 * 10.0
}
