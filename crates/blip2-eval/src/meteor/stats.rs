//! Counts of an alignment, and the score that they give.

use std::sync::Arc;

use super::align::{MODULES, Match};
use super::lexicon::Word;

/// Precision against recall.
const ALPHA: f64 = 0.85;
/// How fast the penalty grows with fragmentation.
const BETA: f64 = 0.2;
/// The largest penalty.
const GAMMA: f64 = 0.6;
/// Content words against function words.
const DELTA: f64 = 0.75;
/// What a match is worth, by module.
const WEIGHTS: [f64; MODULES] = [1.0, 0.6, 0.8, 0.6];

/// Counts of one sentence of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Side {
    length: f64,
    function_words: f64,
    /// Matched words by module.
    content: [f64; MODULES],
    function: [f64; MODULES],
}

/// What a score is computed from. Sums of these give the score of a whole set.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Stats {
    candidate: Side,
    reference: Side,
    chunks: f64,
}

impl Side {
    fn new(
        words: &[Arc<Word>],
        matched: impl Iterator<Item = (usize, std::ops::Range<usize>)>,
    ) -> Self {
        let mut side = Self {
            length: words.len() as f64,
            function_words: words.iter().filter(|word| word.is_function).count() as f64,
            ..Self::default()
        };
        for (module, range) in matched {
            for word in &words[range] {
                let counts = if word.is_function {
                    &mut side.function
                } else {
                    &mut side.content
                };
                counts[module] += 1.0;
            }
        }
        side
    }

    fn add(&mut self, other: &Self) {
        self.length += other.length;
        self.function_words += other.function_words;
        for module in 0..MODULES {
            self.content[module] += other.content[module];
            self.function[module] += other.function[module];
        }
    }

    fn matches(&self) -> f64 {
        self.content.iter().sum::<f64>() + self.function.iter().sum::<f64>()
    }

    /// The weighted share of matched words.
    fn share(&self) -> f64 {
        let length =
            DELTA * (self.length - self.function_words) + (1.0 - DELTA) * self.function_words;
        let mut matches = 0.0;
        for (count, weight) in self.content.iter().zip(WEIGHTS) {
            matches += count * weight * DELTA;
        }
        for (count, weight) in self.function.iter().zip(WEIGHTS) {
            matches += count * weight * (1.0 - DELTA);
        }
        matches / length
    }
}

impl Stats {
    pub fn new(candidate: &[Arc<Word>], reference: &[Arc<Word>], matches: &[Match]) -> Self {
        let in_candidate = matches
            .iter()
            .map(|found| (found.module, found.other_words()));
        let in_reference = matches.iter().map(|found| (found.module, found.words()));
        Self {
            candidate: Side::new(candidate, in_candidate),
            reference: Side::new(reference, in_reference),
            chunks: chunks(matches) as f64,
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.candidate.add(&other.candidate);
        self.reference.add(&other.reference);
        // The one chunk of a perfect match is no fragment.
        if !other.is_whole() {
            self.chunks += other.chunks;
        }
    }

    /// Everything matched, in one piece.
    fn is_whole(&self) -> bool {
        self.candidate.matches() == self.candidate.length
            && self.reference.matches() == self.reference.length
            && self.chunks == 1.0
    }

    /// `F_mean · (1 − γ · fragmentation^β)`, 0 where nothing matches.
    pub fn score(&self) -> f64 {
        let (precision, recall) = (self.candidate.share(), self.reference.share());
        let mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall);
        let fragmentation = if self.is_whole() {
            0.0
        } else {
            self.chunks / ((self.candidate.matches() + self.reference.matches()) / 2.0)
        };
        let score = mean * (1.0 - GAMMA * fragmentation.powf(BETA));
        if score.is_nan() { 0.0 } else { score.max(0.0) }
    }
}

/// Runs of matches that follow each other in both sentences.
fn chunks(matches: &[Match]) -> usize {
    let follows = |pair: &&[Match]| {
        let [before, after] = pair else { return false };
        before.words().end == after.start && before.other_words().end == after.other_start
    };
    matches.len() - matches.windows(2).filter(follows).count()
}
