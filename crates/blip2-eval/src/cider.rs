//! CIDEr, as the COCO tools compute it.
//!
//! Vedantam et al., 2015: n-grams weighted by tf–idf, compared by cosine, averaged over n = 1…4 and
//! over the references, times 10. The document frequency of an n-gram is the number of images of
//! which a reference holds it.
//!
//! What pycocoevalcap's `Cider` computes has both parts that make the paper's CIDEr into CIDEr-D: a
//! candidate's weights are clipped to the reference's, and a Gaussian (σ = 6) of the difference in
//! length multiplies the cosine. With document frequencies of the references, the two names
//! therefore give one value; CIDEr-D can be given the document frequencies of another set.

use rayon::prelude::*;

use crate::DocumentFrequencies;
use crate::ngrams::{Counts, MAX_N, NgramMap, Vocabulary, ngram_of};

const SIGMA: f64 = 6.0;

/// How rare each n-gram is: ln(images) − ln(images whose references hold it).
#[derive(Debug, Clone, Default)]
pub(crate) struct DocumentFrequency {
    /// By n − 1.
    rarity: [NgramMap<f64>; MAX_N],
    /// Of an n-gram that no reference holds.
    unseen: f64,
}

impl DocumentFrequency {
    /// Counts over images, each given by its references.
    pub fn new(images: &[&[Counts]]) -> Self {
        let unseen = (images.len() as f64).ln();
        let mut rarity: [NgramMap<f64>; MAX_N] = Default::default();
        rarity.par_iter_mut().enumerate().for_each(|(n, rarity)| {
            let mut ngrams = Vec::new();
            for references in images {
                ngrams.clear();
                for counts in *references {
                    ngrams.extend(counts.ngrams[n].iter().map(|(ngram, _)| *ngram));
                }
                ngrams.sort_unstable();
                ngrams.dedup();
                for &ngram in &ngrams {
                    *rarity.entry(ngram).or_default() += 1.0;
                }
            }
            rarity
                .values_mut()
                .for_each(|value| *value = unseen - value.ln());
        });
        Self { rarity, unseen }
    }

    /// The frequencies of another set, in the words of `vocabulary`.
    pub fn given(frequencies: &DocumentFrequencies, vocabulary: &mut Vocabulary) -> Self {
        let unseen = frequencies.images().ln();
        let mut rarity: [NgramMap<f64>; MAX_N] = Default::default();
        for (ngram, count) in frequencies.iter() {
            let words: Vec<u32> = ngram
                .split(' ')
                .map(|word| vocabulary.learn(word))
                .collect();
            // An n-gram of no image counts as one of one image does.
            rarity[words.len() - 1].insert(ngram_of(&words), unseen - count.max(1.0).ln());
        }
        Self { rarity, unseen }
    }

    /// The tf–idf vector of a sentence.
    pub fn vector(&self, counts: &Counts) -> Vector {
        let weights: [Vec<f64>; MAX_N] = std::array::from_fn(|n| {
            let weight = |(ngram, count): &(_, u32)| {
                f64::from(*count) * self.rarity[n].get(ngram).unwrap_or(&self.unseen)
            };
            counts.ngrams[n].iter().map(weight).collect()
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
