//! n-gram counts of tokenized sentences.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The longest n-grams that BLEU and CIDEr count.
pub(crate) const MAX_N: usize = 4;

/// Up to four word numbers in one, the last word lowest; none is 0.
pub(crate) type Ngram = u128;

/// The n-gram of up to four words.
pub(crate) fn ngram_of(words: &[u32]) -> Ngram {
    words
        .iter()
        .fold(0, |ngram, &word| ngram << 32 | (Ngram::from(word) + 1))
}

/// A sentence with its n-gram counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Words.
    pub length: usize,
    /// The counts of n-grams with n words, at `n - 1`, in the order of the n-grams.
    pub ngrams: [Vec<(Ngram, u32)>; MAX_N],
}

impl Counts {
    pub fn new(words: &[u32]) -> Self {
        Self {
            length: words.len(),
            ngrams: std::array::from_fn(|index| {
                let mut ngrams: Vec<Ngram> = words.windows(index + 1).map(ngram_of).collect();
                ngrams.sort_unstable();
                let mut counts: Vec<(Ngram, u32)> = Vec::with_capacity(ngrams.len());
                for ngram in ngrams {
                    match counts.last_mut() {
                        Some((last, count)) if *last == ngram => *count += 1,
                        _ => counts.push((ngram, 1)),
                    }
                }
                counts
            }),
        }
    }

    /// Calls `both` with the indices in `self` and in `other` of each n-gram that both have.
    pub fn common(&self, other: &Self, n: usize, mut both: impl FnMut(usize, usize)) {
        let (mine, others) = (&self.ngrams[n], &other.ngrams[n]);
        let (mut a, mut b) = (0, 0);
        while a < mine.len() && b < others.len() {
            match mine[a].0.cmp(&others[b].0) {
                std::cmp::Ordering::Less => a += 1,
                std::cmp::Ordering::Greater => b += 1,
                std::cmp::Ordering::Equal => {
                    both(a, b);
                    a += 1;
                    b += 1;
                }
            }
        }
    }
}

/// Numbers for words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vocabulary(HashMap<String, u32, BuildHasherDefault<WordHasher>>);

impl Vocabulary {
    /// The number of `word`, a new one if it is new.
    pub fn learn(&mut self, word: &str) -> u32 {
        if let Some(&number) = self.0.get(word) {
            return number;
        }
        let number = self.0.len() as u32;
        self.0.insert(word.to_string(), number);
        number
    }

    pub fn get(&self, word: &str) -> Option<u32> {
        self.0.get(word).copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Eight bytes of a word at a time. Whoever made words collide would only make their own scores slow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut wide = [0; 8];
            wide[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(wide));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        let hash = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = hash ^ (hash >> 32);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by n-gram.
pub(crate) type NgramMap<V> = HashMap<Ngram, V, BuildHasherDefault<NgramHasher>>;

/// Hashes n-grams with two multiplications; no one chooses them to collide.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NgramHasher(u64);

impl Hasher for NgramHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u128(byte.into());
        }
    }

    fn write_u128(&mut self, ngram: u128) {
        // Odd numbers close to 2^64 divided by the golden ratio, and by its square.
        let low = (self.0 ^ ngram as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let high = (low.rotate_left(29) ^ (ngram >> 64) as u64).wrapping_mul(0x61c8_8646_80b5_83eb);
        self.0 = high ^ (high >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_ngrams_are_counted() {
        let counts = Counts::new(&[7, 7, 7, 0]);
        let values = |n: usize| {
            counts.ngrams[n]
                .iter()
                .map(|(_, count)| *count)
                .collect::<Vec<_>>()
        };
        assert_eq!(values(0), [1, 3]);
        assert_eq!(values(1), [1, 2]);
        assert_eq!(values(3), [1]);
        let mut common = Vec::new();
        counts.common(&Counts::new(&[0, 7]), 0, |a, b| common.push((a, b)));
        assert_eq!(common, [(0, 0), (1, 1)]);
        assert!(Counts::new(&[]).ngrams.iter().all(Vec::is_empty));
    }
}
