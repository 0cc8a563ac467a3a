//! The alignment of two sentences: which words of one stand for which of the other.
//!
//! All matches are found first; a beam search from left to right then takes those that cover most
//! words in fewest chunks. Where METEOR's own search prefers one of equals by the order in which
//! it finds them, this one does too: scores depend on it.

use super::lexicon::Word;
use super::paraphrases::Paraphrases;
use super::synonyms::share;

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

/// All matches of two sentences, by the word of the reference at which they begin.
struct Matches {
    at: Vec<Vec<Match>>,
    /// How many matches cover each word of the candidate, and of the reference.
    candidate_coverage: Vec<usize>,
    reference_coverage: Vec<usize>,
}

impl Matches {
    fn find(candidate: &[&Word], reference: &[&Word], paraphrases: &Paraphrases) -> Self {
        let mut matches = Self {
            at: vec![Vec::new(); reference.len()],
            candidate_coverage: vec![0; candidate.len()],
            reference_coverage: vec![0; reference.len()],
        };
        matches.single(EXACT, candidate, reference, |a, b| a.text == b.text);
        // Identical sentences need no other matches, among which the search could go astray.
        let identical = candidate.len() == reference.len()
            && candidate
                .iter()
                .zip(reference)
                .all(|(a, b)| a.text == b.text);
        if !identical {
            matches.single(STEM, candidate, reference, |a, b| {
                a.stem == b.stem && a.text != b.text
            });
            matches.single(SYNONYM, candidate, reference, |a, b| {
                a.text != b.text && share(&a.synonyms, &b.synonyms)
            });
            matches.paraphrases(candidate, reference, paraphrases);
        }
        matches
    }

    /// Matches of one word with one word.
    fn single(
        &mut self,
        module: usize,
        candidate: &[&Word],
        reference: &[&Word],
        equal: impl Fn(&Word, &Word) -> bool,
    ) {
        for (start, word) in reference.iter().enumerate() {
            for (other_start, other) in candidate.iter().enumerate() {
                if equal(other, word) {
                    self.add(Match {
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
    fn paraphrases(&mut self, candidate: &[&Word], reference: &[&Word], table: &Paraphrases) {
        let numbers = |words: &[&Word]| words.iter().map(|word| word.phrase).collect();
        let candidate: Vec<Option<u32>> = numbers(candidate);
        let reference: Vec<Option<u32>> = numbers(reference);
        for start in 0..reference.len() {
            table.of_beginnings(&reference[start..], |length, paraphrase| {
                for other_start in occurrences(&candidate, paraphrase) {
                    self.add(Match {
                        module: PARAPHRASE,
                        start,
                        length,
                        other_start,
                        other_length: paraphrase.len(),
                    });
                }
            });
        }
        for other_start in 0..candidate.len() {
            table.of_beginnings(&candidate[other_start..], |other_length, paraphrase| {
                for start in occurrences(&reference, paraphrase) {
                    self.add(Match {
                        module: PARAPHRASE,
                        start,
                        length: paraphrase.len(),
                        other_start,
                        other_length,
                    });
                }
            });
        }
    }

    fn add(&mut self, found: Match) {
        self.at[found.start].push(found);
        for count in &mut self.candidate_coverage[found.other_start..][..found.other_length] {
            *count += 1;
        }
        for count in &mut self.reference_coverage[found.start..][..found.length] {
            *count += 1;
        }
    }

    /// The path on which every match is fixed that no other one touches.
    fn certain(&self) -> Path {
        let mut path = Path {
            matches: vec![None; self.reference_coverage.len()],
            used: vec![false; self.reference_coverage.len()],
            other_used: vec![false; self.candidate_coverage.len()],
            covered: 0,
            chunks: 0,
            distance: 0,
            next: 0,
            chunk_end: None,
        };
        for only in &self.at {
            let [only] = only.as_slice() else { continue };
            let alone = |coverage: &[usize]| coverage.iter().all(|&count| count == 1);
            if alone(&self.reference_coverage[only.start..][..only.length])
                && alone(&self.candidate_coverage[only.other_start..][..only.other_length])
            {
                path.take(*only);
            }
        }
        path
    }
}

/// Where `phrase` occurs in `words`.
fn occurrences<'a>(
    words: &'a [Option<u32>],
    phrase: &'a [u32],
) -> impl Iterator<Item = usize> + 'a {
    (0..words.len()).filter(move |&start| {
        words.len() - start >= phrase.len()
            && words[start..]
                .iter()
                .zip(phrase)
                .all(|(word, other)| *word == Some(*other))
    })
}

/// An alignment of the words up to some place.
#[derive(Debug, Clone)]
struct Path {
    matches: Vec<Option<Match>>,
    used: Vec<bool>,
    other_used: Vec<bool>,
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
    /// Claims the words of a match.
    fn take(&mut self, taken: Match) {
        self.matches[taken.start] = Some(taken);
        self.used[taken.start..][..taken.length].fill(true);
        self.other_used[taken.other_start..][..taken.other_length].fill(true);
    }

    fn is_free(&self, wanted: &Match) -> bool {
        let free = |used: &[bool]| used.iter().all(|used| !used);
        free(&self.used[wanted.start..][..wanted.length])
            && free(&self.other_used[wanted.other_start..][..wanted.other_length])
    }

    /// Counts a match and moves behind it.
    fn pass(&mut self, passed: &Match) {
        // METEOR keeps whole numbers: half a word is none.
        let weighted = |length: usize| (length as f64 * WEIGHTS[passed.module]) as i32;
        self.covered += weighted(passed.other_length) + weighted(passed.length);
        if self.chunk_end.is_some_and(|end| end != passed.other_start) {
            self.chunks += 1;
        }
        self.next = passed.start + passed.length;
        self.chunk_end = Some(passed.other_start + passed.other_length);
    }

    fn close_chunk(&mut self) {
        if self.chunk_end.take().is_some() {
            self.chunks += 1;
        }
    }
}

fn crossing(found: &Match) -> i32 {
    found.start.abs_diff(found.other_start) as i32
}

/// The best matches, by the word of the reference at which they begin.
pub(super) fn align(
    candidate: &[&Word],
    reference: &[&Word],
    paraphrases: &Paraphrases,
) -> Vec<Option<Match>> {
    let matches = Matches::find(candidate, reference, paraphrases);
    let mut next = vec![matches.certain()];
    for current in 0..=reference.len() {
        let mut paths = std::mem::take(&mut next);
        sort(&mut paths);
        paths.truncate(BEAM);
        let mut first = None;
        for (rank, mut path) in paths.into_iter().enumerate() {
            if current == reference.len() {
                path.close_chunk();
                next.push(path);
            } else if path.used[current] {
                if current < path.next {
                    next.push(path);
                } else if let Some(fixed) = path.matches[path.next] {
                    path.pass(&fixed);
                    path.distance += crossing(&fixed);
                    next.push(path);
                } else if rank == 0 {
                    first = Some(path);
                }
            } else {
                for found in &matches.at[current] {
                    if !path.is_free(found) {
                        continue;
                    }
                    let mut with = path.clone();
                    with.take(*found);
                    with.pass(found);
                    // As METEOR has it: the way that is left behind grows longer, not this one.
                    path.distance += crossing(found);
                    next.push(with);
                }
                path.close_chunk();
                path.next += 1;
                next.push(path);
            }
        }
        if next.is_empty() {
            next.extend(first);
        }
    }
    sort(&mut next);
    next.into_iter()
        .next()
        .map_or_else(Vec::new, |path| path.matches)
}

/// Most words, fewest chunks, least crossing; equals stay in their order.
fn sort(paths: &mut [Path]) {
    paths.sort_by_key(|path| (-path.covered, path.chunks, path.distance));
}
