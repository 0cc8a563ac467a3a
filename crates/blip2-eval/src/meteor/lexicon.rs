//! What METEOR knows of each word.

use std::collections::HashMap;
use std::sync::Arc;

use rust_stemmers::{Algorithm, Stemmer};

use super::data::MeteorData;
use super::paraphrases::Paraphrases;
use super::synonyms::Synsets;

/// A word and what it can match by.
#[derive(Debug)]
pub(super) struct Word {
    /// A number of the word itself.
    pub text: u32,
    /// A number of its stem.
    pub stem: u32,
    /// Its sets of synonyms, in order.
    pub synonyms: Synsets,
    /// Its number in the table of paraphrases.
    pub phrase: Option<u32>,
    /// Whether it is a function word.
    pub is_function: bool,
}

/// A sentence in words.
pub(super) type Sentence = Vec<Arc<Word>>;

/// Every word met so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Lexicon {
    words: HashMap<String, Arc<Word>>,
    stems: HashMap<String, u32>,
}

impl Lexicon {
    pub fn sentence(
        &mut self,
        tokens: &[String],
        data: &MeteorData,
        paraphrases: &Paraphrases,
    ) -> Sentence {
        let words = tokens.iter();
        words
            .map(|token| self.word(token, data, paraphrases))
            .collect()
    }

    fn word(&mut self, token: &str, data: &MeteorData, paraphrases: &Paraphrases) -> Arc<Word> {
        if let Some(word) = self.words.get(token) {
            return Arc::clone(word);
        }
        let stem = Stemmer::create(Algorithm::English).stem(token).into_owned();
        let next = self.stems.len() as u32;
        let word = Arc::new(Word {
            text: self.words.len() as u32,
            stem: *self.stems.entry(stem).or_insert(next),
            synonyms: data.synonyms.of(token),
            phrase: paraphrases.word(token),
            is_function: data.function_words.contains(token),
        });
        self.words.insert(token.to_string(), Arc::clone(&word));
        word
    }
}
