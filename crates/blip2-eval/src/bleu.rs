//! BLEU-1 to BLEU-4 as the COCO tools compute it.
//!
//! Papineni et al., 2002, over the whole set: clipped n-gram matches are summed over images before
//! they are divided. COCO's variant takes, for each image, the reference length that is closest to
//! the candidate's (the shorter one of two equally close), and adds tiny numbers instead of failing
//! at zero matches.

use crate::ngrams::{Counts, MAX_N};

/// Keeps products of zero matches from being exactly zero; values of the COCO tools.
const SMALL: f64 = 1e-9;
const TINY: f64 = 1e-15;

/// What one image adds to the sums.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sums {
    candidate_length: f64,
    reference_length: f64,
    guesses: [f64; MAX_N],
    correct: [f64; MAX_N],
}

impl Sums {
    pub fn new(candidate: &Counts, references: &[Counts]) -> Self {
        let length = candidate.length as f64;
        let closest = references
            .iter()
            .map(|reference| reference.length)
            .min_by_key(|&reference| (reference.abs_diff(candidate.length), reference));
        let mut sums = Self {
            candidate_length: length,
            reference_length: closest.unwrap_or(0) as f64,
            ..Self::default()
        };
        let mut most = Vec::new();
        for n in 0..MAX_N {
            sums.guesses[n] = candidate.length.saturating_sub(n) as f64;
            most.clear();
            most.resize(candidate.ngrams[n].len(), 0);
            for reference in references {
                candidate.common(reference, n, |own, other| {
                    most[own] = reference.ngrams[n][other].1.max(most[own]);
                });
            }
            sums.correct[n] = candidate.ngrams[n]
                .iter()
                .zip(&most)
                .map(|((_, count), &most)| f64::from(*count.min(&most)))
                .sum();
        }
        sums
    }

    pub fn add(mut self, other: &Self) -> Self {
        self.candidate_length += other.candidate_length;
        self.reference_length += other.reference_length;
        for n in 0..MAX_N {
            self.guesses[n] += other.guesses[n];
            self.correct[n] += other.correct[n];
        }
        self
    }

    /// BLEU-1 to BLEU-4.
    pub fn bleu(&self) -> [f64; MAX_N] {
        let mut product = 1.0;
        let mut scores = [0.0; MAX_N];
        for (n, score) in scores.iter_mut().enumerate() {
            product *= (self.correct[n] + TINY) / (self.guesses[n] + SMALL);
            *score = f64::powf(product, 1.0 / (n as f64 + 1.0));
        }
        let ratio = (self.candidate_length + TINY) / (self.reference_length + SMALL);
        if ratio < 1.0 {
            let brevity = (1.0 - 1.0 / ratio).exp();
            scores = scores.map(|score| score * brevity);
        }
        scores
    }
}
