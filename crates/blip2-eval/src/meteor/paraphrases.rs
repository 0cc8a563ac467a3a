//! METEOR's table of paraphrases: five million pairs of phrases.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;

use super::inflate::Inflate;
use crate::ngrams::WordHasher;

/// Numbers for the words of the table.
type Words = HashMap<Box<[u8]>, u32, BuildHasherDefault<WordHasher>>;
/// Where the paraphrases of a phrase are, by the hash of its words.
type Phrases = HashMap<u64, (u32, u32), BuildHasherDefault<PhraseHasher>>;

/// Paraphrases by phrase, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Paraphrases {
    words: Words,
    phrases: Phrases,
    /// The entries, those of a phrase together.
    order: Vec<u32>,
    /// Where the paraphrase of an entry begins in `text`.
    starts: Vec<u32>,
    /// The words of all paraphrases.
    text: Vec<u32>,
    longest: usize,
}

impl Paraphrases {
    /// Reads the table: lines with a probability (which METEOR does not use), a phrase, a paraphrase.
    ///
    /// A reference holds one of the two if they ever match, so pairs are left out of which neither
    /// consists of `known` words: most of the table.
    pub fn read<'a>(
        mut table: Inflate,
        known: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<Self> {
        let known = Known::new(known);
        let mut result = Self::default();
        result.starts.push(0);
        let mut hashes: Vec<u64> = Vec::new();
        let (mut phrase, mut paraphrase) = (Vec::new(), Vec::new());
        let mut entries = 0_usize;
        while table.skip_line()? {
            phrase.clear();
            paraphrase.clear();
            table.line(&mut phrase)?;
            if !table.line(&mut paraphrase)? {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("entry {entries} is not whole"),
                ));
            }
            entries += 1;
            if !known.all_of(&phrase) && !known.all_of(&paraphrase) {
                continue;
            }
            let mut hash = Phrase::default();
            for word in split(&phrase) {
                hash.push(result.number(word)?);
            }
            result.longest = result.longest.max(hash.length);
            hashes.push(hash.value());
            for word in split(&paraphrase) {
                let number = result.number(word)?;
                result.text.push(number);
            }
            result.starts.push(small(result.text.len())?);
        }
        result.order = (0..small(hashes.len())?).collect();
        // Stable: the order of the file decides between alignments of the same score.
        result.order.sort_by_key(|&entry| hashes[entry as usize]);
        let mut start = 0;
        while start < result.order.len() {
            let hash = hashes[result.order[start] as usize];
            let same = |entry: &&u32| hashes[**entry as usize] == hash;
            let count = result.order[start..].iter().take_while(same).count();
            result.phrases.insert(hash, (small(start)?, small(count)?));
            start += count;
        }
        Ok(result)
    }

    /// The number of a word, if the table has it.
    pub fn word(&self, word: &str) -> Option<u32> {
        self.words.get(word.as_bytes()).copied()
    }

    /// Calls `each` with the length of every phrase that begins `words`, and each paraphrase of it.
    pub fn of_beginnings<'a>(
        &'a self,
        words: &[Option<u32>],
        mut each: impl FnMut(usize, &'a [u32]),
    ) {
        let mut phrase = Phrase::default();
        for word in words.iter().take(self.longest) {
            let Some(word) = word else { return };
            phrase.push(*word);
            let Some(&(start, count)) = self.phrases.get(&phrase.value()) else {
                continue;
            };
            for &entry in &self.order[start as usize..][..count as usize] {
                let entry = entry as usize;
                let (start, end) = (self.starts[entry], self.starts[entry + 1]);
                each(phrase.length, &self.text[start as usize..end as usize]);
            }
        }
    }

    fn number(&mut self, word: &[u8]) -> io::Result<u32> {
        if let Some(&number) = self.words.get(word) {
            return Ok(number);
        }
        let number = small(self.words.len())?;
        self.words.insert(word.into(), number);
        Ok(number)
    }
}

/// A set of words, and a small map of bits that turns most others away.
struct Known<'a> {
    words: HashSet<&'a [u8], BuildHasherDefault<WordHasher>>,
    bits: Vec<u64>,
}

/// Of the map of bits; what fits into the first-level cache.
const KNOWN_BITS: u64 = 1 << 17;

impl<'a> Known<'a> {
    fn new(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = Self {
            words: HashSet::default(),
            bits: vec![0; KNOWN_BITS as usize / 64],
        };
        for word in words {
            let (index, bit) = Self::bit(word.as_bytes());
            known.bits[index] |= bit;
            known.words.insert(word.as_bytes());
        }
        known
    }

    fn bit(word: &[u8]) -> (usize, u64) {
        let mut hasher = WordHasher::default();
        hasher.write(word);
        let place = (hasher.finish() >> 20) % KNOWN_BITS;
        ((place / 64) as usize, 1 << (place % 64))
    }

    fn all_of(&self, line: &[u8]) -> bool {
        split(line).all(|word| {
            let (index, bit) = Self::bit(word);
            self.bits[index] & bit != 0 && self.words.contains(word)
        })
    }
}

fn split(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c);
    line.split(is_space).filter(|word| !word.is_empty())
}

fn small(number: usize) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::Error::other("the table is too large"))
}

/// The hash of a phrase, word by word.
#[derive(Default)]
struct Phrase {
    hash: u64,
    length: usize,
}

impl Phrase {
    fn push(&mut self, word: u32) {
        self.hash =
            (self.hash.rotate_left(25) ^ (u64::from(word) + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.length += 1;
    }

    /// Mixed once more, so that maps can take it as it is.
    fn value(&self) -> u64 {
        let hash = (self.hash ^ (self.hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        hash ^ (hash >> 32) ^ ((self.length as u64) << 56)
    }
}

/// Takes the hash of a phrase as it is.
#[derive(Default)]
struct PhraseHasher(u64);

impl Hasher for PhraseHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(text: &str) -> Inflate {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        Inflate::new(io::Cursor::new(encoder.finish().unwrap()))
    }

    #[test]
    fn every_beginning_gives_its_paraphrases_in_the_order_of_the_file() {
        // The fourth pair has a word on each side that no reference has.
        let table = "0.1\na dog\na hound\n0.2\na\none\n0.3\na dog\nthe animal\n0.4\ndog cat\nhound cat\n0.5\ndog\nhound\n";
        let table = Paraphrases::read(packed(table), ["a", "dog", "hound", "one"]).unwrap();
        let words: Vec<Option<u32>> = ["a", "dog", "x"].map(|word| table.word(word)).into();
        let mut found = Vec::new();
        table.of_beginnings(&words, |length, paraphrase| {
            found.push((length, paraphrase.to_vec()))
        });
        let numbers = |words: &[&str]| -> Vec<u32> {
            words.iter().map(|word| table.word(word).unwrap()).collect()
        };
        assert_eq!(
            found,
            [
                (1, numbers(&["one"])),
                (2, numbers(&["a", "hound"])),
                (2, numbers(&["the", "animal"]))
            ]
        );
        assert_eq!(table.word("cat"), None);
        assert_eq!(table.starts.len(), 5);
        assert!(Paraphrases::read(packed("0.1\na dog\n"), []).is_err());
    }
}
