//! CIDEr, as the COCO tools compute it.
//!
//! Vedantam et al., 2015: n-grams weighted by tf–idf, compared by cosine, averaged over n = 1…4 and
//! over the references, times 10. The document frequency of an n-gram is the number of images of
//! which a reference holds it.
//!
//! What pycocoevalcap's `Cider` computes has both parts that make the paper's CIDEr into CIDEr-D: a
//! candidate's weights are clipped to the reference's, and a Gaussian (σ = 6) of the difference in
//! length multiplies the cosine. With document frequencies of the references, the two names
//! therefore give one value.

use crate::ngrams::{Counts, MAX_N, NgramMap};

const SIGMA: f64 = 6.0;

/// In how many images' references each n-gram occurs.
#[derive(Debug, Clone, Default)]
pub(crate) struct DocumentFrequency {
    counts: NgramMap<u32>,
    /// ln(images)
    log_images: f64,
}

impl DocumentFrequency {
    /// Counts over images, each given by its references.
    pub fn new<'a>(images: impl Iterator<Item = &'a [Counts]>) -> Self {
        let mut frequency = Self::default();
        let mut total = 0u32;
        let mut ngrams = Vec::new();
        for references in images {
            total += 1;
            ngrams.clear();
            for ngram in references
                .iter()
                .flat_map(|counts| counts.ngrams.iter().flatten())
            {
                ngrams.push(ngram.0);
            }
            ngrams.sort_unstable();
            ngrams.dedup();
            for &ngram in &ngrams {
                *frequency.counts.entry(ngram).or_default() += 1;
            }
        }
        frequency.log_images = f64::from(total).ln();
        frequency
    }

    /// The tf–idf vector of a sentence.
    pub fn vector(&self, counts: &Counts) -> Vector {
        let weights = counts.ngrams.each_ref().map(|ngrams| {
            let weight = |(ngram, count): &(_, u32)| {
                let frequency = self.counts.get(ngram).copied().unwrap_or(1);
                f64::from(*count) * (self.log_images - f64::from(frequency).ln())
            };
            ngrams.iter().map(weight).collect::<Vec<_>>()
        });
        let norm = |weights: &Vec<f64>| {
            weights
                .iter()
                .map(|weight| weight * weight)
                .sum::<f64>()
                .sqrt()
        };
        Vector {
            norms: weights.each_ref().map(norm),
            weights,
            // The COCO tools measure length in bigrams.
            length: counts.length.saturating_sub(1) as f64,
        }
    }
}

/// The tf–idf weights of a sentence, in the order of its [`Counts`].
#[derive(Debug, Clone)]
pub(crate) struct Vector {
    weights: [Vec<f64>; MAX_N],
    norms: [f64; MAX_N],
    length: f64,
}

/// A sentence as counts and as weights.
pub(crate) type Weighted<'a> = (&'a Counts, &'a Vector);

fn similarity(candidate: Weighted, reference: Weighted) -> f64 {
    let delta = candidate.1.length - reference.1.length;
    let gaussian = (-(delta * delta) / (2.0 * SIGMA * SIGMA)).exp();
    let mut sum = 0.0;
    for n in 0..MAX_N {
        let mut product = 0.0;
        candidate.0.common(reference.0, n, |own, other| {
            let other = reference.1.weights[n][other];
            product += candidate.1.weights[n][own].min(other) * other;
        });
        let norms = candidate.1.norms[n] * reference.1.norms[n];
        if norms != 0.0 {
            product /= norms;
        }
        sum += product * gaussian;
    }
    sum / MAX_N as f64
}

/// The score of one candidate; 0 without references.
pub(crate) fn cider<'a>(
    candidate: Weighted,
    references: impl ExactSizeIterator<Item = Weighted<'a>>,
) -> f64 {
    let count = references.len().max(1) as f64;
    let sum: f64 = references
        .map(|reference| similarity(candidate, reference))
        .sum();
    sum / count * 10.0
}
