//! WordNet's synonym sets, as METEOR's data hold them.

use std::collections::HashMap;

/// Endings of inflected words and what they come from (WordNet's morphology): nouns, verbs,
/// adjectives.
const ENDINGS: [(&str, &str); 20] = [
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
    ("s", ""),
    ("ies", "y"),
    ("es", "e"),
    ("es", ""),
    ("ed", "e"),
    ("ed", ""),
    ("ing", "e"),
    ("ing", ""),
    ("er", ""),
    ("est", ""),
    ("er", "e"),
    ("est", "e"),
];

/// Sets of synonyms, by word.
#[derive(Debug, Default)]
pub(super) struct Synonyms {
    sets: HashMap<String, Vec<u32>>,
    /// The bases of irregular forms.
    exceptions: HashMap<String, Vec<String>>,
}

impl Synonyms {
    /// Reads synsets (a line with a word, a line with the numbers of its sets) and exceptions (a
    /// line with a base, a line with its forms). The error is the number of the line that is wrong.
    pub fn read(synsets: &str, exceptions: &str) -> Result<Self, (&'static str, usize)> {
        let mut result = Self::default();
        let mut lines = synsets.lines().enumerate();
        while let Some((number, word)) = lines.next() {
            let wrong = ("synsets", number + 2);
            let (_, sets) = lines.next().ok_or(wrong)?;
            let sets: Result<Vec<u32>, _> = sets.split_whitespace().map(str::parse).collect();
            result
                .sets
                .insert(word.to_string(), sets.map_err(|_| wrong)?);
        }
        let mut lines = exceptions.lines().enumerate();
        while let Some((number, base)) = lines.next() {
            let (_, forms) = lines.next().ok_or(("exceptions", number + 2))?;
            for form in forms.split_whitespace() {
                let bases = result.exceptions.entry(form.to_string()).or_default();
                bases.push(base.to_string());
            }
        }
        Ok(result)
    }

    /// The sets of a word and of its base forms.
    pub fn of(&self, word: &str) -> Synsets {
        let mut sets: Vec<u32> = self.sets_of(word).to_vec();
        match self.exceptions.get(word) {
            Some(bases) => {
                for base in bases {
                    sets.extend(self.sets_of(base));
                }
            }
            None => {
                if let Some(base) = self.base(word) {
                    sets.extend(self.sets_of(&base));
                }
            }
        }
        sets.sort_unstable();
        sets.dedup();
        Synsets {
            bits: sets.iter().fold(0, |bits, set| bits | 1 << (set % 64)),
            sets,
        }
    }

    fn sets_of(&self, word: &str) -> &[u32] {
        self.sets.get(word).map_or(&[], Vec::as_slice)
    }

    /// The first regular base that is a word.
    fn base(&self, word: &str) -> Option<String> {
        if word.ends_with("ss") || word.encode_utf16().count() <= 2 {
            return Some(word.to_string());
        }
        ENDINGS.iter().find_map(|(ending, replacement)| {
            let base = format!("{}{replacement}", word.strip_suffix(ending)?);
            self.sets.contains_key(&base).then_some(base)
        })
    }
}

/// Sets of synonyms, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Synsets {
    sets: Vec<u32>,
    /// A bit for each of them: most words have nothing in common.
    bits: u64,
}

impl Synsets {
    /// Whether two words have one in common.
    pub fn meet(&self, other: &Self) -> bool {
        if self.bits & other.bits == 0 {
            return false;
        }
        let (mut a, mut b) = (self.sets.iter().peekable(), other.sets.iter().peekable());
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            match x.cmp(y) {
                std::cmp::Ordering::Less => _ = a.next(),
                std::cmp::Ordering::Greater => _ = b.next(),
                std::cmp::Ordering::Equal => return true,
            }
        }
        false
    }
}
