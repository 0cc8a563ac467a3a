//! n-gram counts of tokenized sentences.

use std::collections::HashMap;

/// The longest n-grams that BLEU and CIDEr count.
pub(crate) const MAX_N: usize = 4;

/// Numbers for words, shared by all sentences of a [`Scorer`](crate::Scorer).
#[derive(Debug, Clone, Default)]
pub(crate) struct Vocabulary(HashMap<String, u32>);

impl Vocabulary {
    /// The number of `word`, a new one if it is new.
    pub fn learn(&mut self, word: &str) -> u32 {
        if let Some(&id) = self.0.get(word) {
            return id;
        }
        let id = self.0.len() as u32;
        self.0.insert(word.to_string(), id);
        id
    }
}

/// An n-gram: up to four word numbers; shorter ones are filled up with [`u32::MAX`].
pub(crate) type Ngram = [u32; MAX_N];

/// A sentence with its n-gram counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Words.
    pub length: usize,
    /// The counts of n-grams with n words, at `n - 1`.
    pub ngrams: [HashMap<Ngram, u32>; MAX_N],
}

impl Counts {
    pub fn new(words: &[u32]) -> Self {
        let mut counts = Self {
            length: words.len(),
            ngrams: Default::default(),
        };
        for n in 1..=MAX_N {
            for window in words.windows(n) {
                let mut ngram = [u32::MAX; MAX_N];
                ngram[..n].copy_from_slice(window);
                *counts.ngrams[n - 1].entry(ngram).or_default() += 1;
            }
        }
        counts
    }
}
