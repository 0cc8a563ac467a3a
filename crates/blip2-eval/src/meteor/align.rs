//! The alignment of two sentences: which words of one stand for which of the other.
//!
//! All matches are found first; a beam search from left to right then takes those that cover most
//! words in fewest chunks. Where METEOR's own search prefers one of equals by the order in which
//! it finds them, this one does too: scores depend on it.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::lexicon::Word;
use super::paraphrases::Paraphrases;

/// Ways in which words match: exactly, by stem, as synonyms, as paraphrases.
pub(super) const MODULES: usize = 4;
const EXACT: usize = 0;
const STEM: usize = 1;
const SYNONYM: usize = 2;
const PARAPHRASE: usize = 3;

/// What a matched word is worth in the search, by module.
const WEIGHTS: [f64; MODULES] = [1.0, 0.5, 0.5, 0.5];
/// Partial alignments that are followed.
const BEAM: usize = 40;

/// Words of the reference that stand for words of the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub module: usize,
    /// In the reference.
    pub start: usize,
    pub length: usize,
    /// In the candidate.
    pub other_start: usize,
    pub other_length: usize,
}

impl Match {
    /// In the reference.
    pub fn words(&self) -> Range<usize> {
        self.start..self.start + self.length
    }

    /// In the candidate.
    pub fn other_words(&self) -> Range<usize> {
        self.other_start..self.other_start + self.other_length
    }

    /// How far apart the two stand.
    fn crossing(&self) -> i32 {
        self.start.abs_diff(self.other_start) as i32
    }
}

/// A candidate, and what it takes to match it with any reference.
pub(super) struct Candidate<'a> {
    pub words: &'a [Arc<Word>],
    /// Its words in the table of paraphrases.
    numbers: Vec<Option<u32>>,
    /// Its phrases and their paraphrases: where they begin, how long they are.
    paraphrases: Vec<(usize, usize, &'a [u32])>,
}

impl<'a> Candidate<'a> {
    pub fn new(words: &'a [Arc<Word>], table: &'a Paraphrases) -> Self {
        let numbers: Vec<Option<u32>> = words.iter().map(|word| word.phrase).collect();
        let mut paraphrases = Vec::new();
        for start in 0..numbers.len() {
            table.of_beginnings(&numbers[start..], |length, paraphrase| {
                paraphrases.push((start, length, paraphrase));
            });
        }
        Self {
            words,
            numbers,
            paraphrases,
        }
    }
}

/// All matches of a candidate with a reference.
struct Matches {
    /// By the word of the reference at which they begin; as they were found where that is the same.
    all: Vec<Match>,
    /// Where those of each word are.
    at: Vec<Range<usize>>,
    /// Matches that no other one touches, by the word of the reference at which they begin.
    certain: Vec<Option<Match>>,
}

impl Matches {
    fn find(candidate: &Candidate, reference: &[Arc<Word>], paraphrases: &Paraphrases) -> Self {
        let mut all = Vec::new();
        let words = candidate.words;
        single(&mut all, EXACT, words, reference, |a, b| a.text == b.text);
        // Identical sentences need no other matches, among which the search could go astray.
        let same = |(a, b): (&Arc<Word>, &Arc<Word>)| a.text == b.text;
        if words.len() != reference.len() || !words.iter().zip(reference).all(same) {
            single(&mut all, STEM, words, reference, |a, b| {
                a.stem == b.stem && a.text != b.text
            });
            single(&mut all, SYNONYM, words, reference, |a, b| {
                a.text != b.text && a.synonyms.meet(&b.synonyms)
            });
            phrases(&mut all, candidate, reference, paraphrases);
        }
        // Stable: the search takes the first of equals.
        all.sort_by_key(|found| found.start);
        let mut at = Vec::with_capacity(reference.len());
        let mut end = 0;
        for word in 0..reference.len() {
            let start = end;
            let here = all[start..].iter().take_while(|found| found.start == word);
            end += here.count();
            at.push(start..end);
        }
        let certain = certain(&all, &at, words.len());
        Self { all, at, certain }
    }
}

/// Matches of one word with one word.
fn single(
    all: &mut Vec<Match>,
    module: usize,
    candidate: &[Arc<Word>],
    reference: &[Arc<Word>],
    equal: impl Fn(&Word, &Word) -> bool,
) {
    for (start, word) in reference.iter().enumerate() {
        for (other_start, other) in candidate.iter().enumerate() {
            if equal(other, word) {
                all.push(Match {
                    module,
                    start,
                    length: 1,
                    other_start,
                    other_length: 1,
                });
            }
        }
    }
}

/// Phrases of the reference whose paraphrases the candidate holds, and the other way round.
fn phrases(
    all: &mut Vec<Match>,
    candidate: &Candidate,
    reference: &[Arc<Word>],
    table: &Paraphrases,
) {
    let numbers: Vec<Option<u32>> = reference.iter().map(|word| word.phrase).collect();
    let in_candidate = Occurrences::new(&candidate.numbers);
    for start in 0..numbers.len() {
        table.of_beginnings(&numbers[start..], |length, paraphrase| {
            in_candidate.of(paraphrase, |other_start| {
                all.push(Match {
                    module: PARAPHRASE,
                    start,
                    length,
                    other_start,
                    other_length: paraphrase.len(),
                });
            });
        });
    }
    let in_reference = Occurrences::new(&numbers);
    for &(other_start, other_length, paraphrase) in &candidate.paraphrases {
        in_reference.of(paraphrase, |start| {
            all.push(Match {
                module: PARAPHRASE,
                start,
                length: paraphrase.len(),
                other_start,
                other_length,
            });
        });
    }
}

/// Finds phrases in a sentence.
struct Occurrences<'a> {
    words: &'a [Option<u32>],
    /// A bit for the words that occur; most phrases begin with none of them.
    bits: u64,
}

impl<'a> Occurrences<'a> {
    fn new(words: &'a [Option<u32>]) -> Self {
        let known = words.iter().flatten();
        let bits = known.fold(0, |bits, word| bits | 1 << (word % 64));
        Self { words, bits }
    }

    fn of(&self, phrase: &[u32], mut each: impl FnMut(usize)) {
        let may_occur = |first: &&u32| self.bits & (1 << (**first % 64)) != 0;
        if phrase.first().filter(may_occur).is_none() {
            return;
        }
        for (start, window) in self.words.windows(phrase.len()).enumerate() {
            let equal = |(word, other): (&Option<u32>, &u32)| *word == Some(*other);
            if window.iter().zip(phrase).all(equal) {
                each(start);
            }
        }
    }
}

/// The matches that no other one touches.
fn certain(all: &[Match], at: &[Range<usize>], candidate_length: usize) -> Vec<Option<Match>> {
    let mut coverage = vec![0_u32; at.len()];
    let mut candidate_coverage = vec![0_u32; candidate_length];
    for found in all {
        for count in &mut coverage[found.words()] {
            *count += 1;
        }
        for count in &mut candidate_coverage[found.other_words()] {
            *count += 1;
        }
    }
    let alone = |coverage: &[u32]| coverage.iter().all(|&count| count == 1);
    at.iter()
        .map(|range| match &all[range.clone()] {
            [only]
                if alone(&coverage[only.words()])
                    && alone(&candidate_coverage[only.other_words()]) =>
            {
                Some(*only)
            }
            _ => None,
        })
        .collect()
}

/// Words of a sentence that are taken; up to 128 without a heap.
#[derive(Debug, Clone)]
struct Taken(SmallVec<[u64; 2]>);

impl Taken {
    fn none(words: usize) -> Self {
        Self(SmallVec::from_elem(0, words.div_ceil(64)))
    }

    fn has(&self, word: usize) -> bool {
        self.0[word / 64] & (1 << (word % 64)) != 0
    }

    fn has_any(&self, mut words: Range<usize>) -> bool {
        words.any(|word| self.has(word))
    }

    fn take(&mut self, words: Range<usize>) {
        for word in words {
            self.0[word / 64] |= 1 << (word % 64);
        }
    }
}

/// An alignment of the words up to some place.
#[derive(Debug, Clone)]
struct Path {
    /// The last match passed, in the list of [`Search`].
    last: Option<usize>,
    taken: Taken,
    other_taken: Taken,
    /// Weighted words of both sentences.
    covered: i32,
    chunks: i32,
    distance: i32,
    /// The next word of the reference that is not decided.
    next: usize,
    /// Where the open chunk ends in the candidate.
    chunk_end: Option<usize>,
}

impl Path {
    /// The start: what is certain is taken.
    fn new(certain: &[Option<Match>], candidate_length: usize) -> Self {
        let mut path = Self {
            last: None,
            taken: Taken::none(certain.len()),
            other_taken: Taken::none(candidate_length),
            covered: 0,
            chunks: 0,
            distance: 0,
            next: 0,
            chunk_end: None,
        };
        for found in certain.iter().flatten() {
            path.take(found);
        }
        path
    }

    /// Claims the words of a match.
    fn take(&mut self, found: &Match) {
        self.taken.take(found.words());
        self.other_taken.take(found.other_words());
    }

    fn is_free(&self, found: &Match) -> bool {
        !self.taken.has_any(found.words()) && !self.other_taken.has_any(found.other_words())
    }

    fn close_chunk(&mut self) {
        if self.chunk_end.take().is_some() {
            self.chunks += 1;
        }
    }
}

/// The matches of all paths, each with the one before it.
#[derive(Default)]
struct Search(Vec<(Match, Option<usize>)>);

impl Search {
    /// Counts a match and moves behind it.
    fn pass(&mut self, path: &mut Path, found: &Match) {
        self.0.push((*found, path.last));
        path.last = Some(self.0.len() - 1);
        // METEOR keeps whole numbers: half a word is none.
        let weighted = |length: usize| (length as f64 * WEIGHTS[found.module]) as i32;
        path.covered += weighted(found.other_length) + weighted(found.length);
        if path.chunk_end.is_some_and(|end| end != found.other_start) {
            path.chunks += 1;
        }
        path.next = found.words().end;
        path.chunk_end = Some(found.other_words().end);
    }

    /// The matches of a path, in the order of the reference.
    fn matches(&self, path: &Path) -> Vec<Match> {
        let mut matches = Vec::new();
        let mut last = path.last;
        while let Some(index) = last {
            let (found, before) = self.0[index];
            matches.push(found);
            last = before;
        }
        matches.reverse();
        matches
    }
}

/// The best matches, in the order of the reference.
pub(super) fn align(
    candidate: &Candidate,
    reference: &[Arc<Word>],
    paraphrases: &Paraphrases,
) -> Vec<Match> {
    let matches = Matches::find(candidate, reference, paraphrases);
    let mut search = Search::default();
    let mut paths = Vec::new();
    let mut next = vec![Path::new(&matches.certain, candidate.words.len())];
    for current in 0..reference.len() {
        std::mem::swap(&mut paths, &mut next);
        keep_best(&mut paths);
        for mut path in paths.drain(..) {
            if current < path.next {
                // Inside of a match.
                next.push(path);
            } else if path.taken.has(current) {
                // A certain match begins here: whatever else is taken was passed.
                if let Some(certain) = &matches.certain[current] {
                    search.pass(&mut path, certain);
                    path.distance += certain.crossing();
                    next.push(path);
                }
            } else {
                for found in &matches.all[matches.at[current].clone()] {
                    if !path.is_free(found) {
                        continue;
                    }
                    let mut with = path.clone();
                    with.take(found);
                    search.pass(&mut with, found);
                    // As METEOR has it: the way that is left behind grows longer, not this one.
                    path.distance += found.crossing();
                    next.push(with);
                }
                path.close_chunk();
                path.next += 1;
                next.push(path);
            }
        }
    }
    keep_best(&mut next);
    next.iter_mut().for_each(Path::close_chunk);
    keep_best(&mut next);
    next.first()
        .map_or_else(Vec::new, |path| search.matches(path))
}

/// Most words, fewest chunks, least crossing; equals stay in their order.
fn keep_best(paths: &mut Vec<Path>) {
    paths.sort_by_key(|path| (-path.covered, path.chunks, path.distance));
    paths.truncate(BEAM);
}
