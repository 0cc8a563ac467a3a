//! References, prepared once, and candidates scored against them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use crate::bleu::Sums;
use crate::cider::{DocumentFrequency, Vector, cider};
use crate::meteor::Meteor;
use crate::ngrams::{Counts, Vocabulary};
use crate::ptb_tokenizer::is_space;
use crate::rouge_l::rouge_l;
use crate::spice::SpiceImage;
use crate::{
    Captions, DocumentFrequencies, EvalError, MeteorData, Metric, Report, Scores, Spice, tokenize,
};

/// The references of a set of images, tokenized and counted.
///
/// Made once, it scores any number of candidate sets.
#[derive(Debug, Clone)]
pub struct Scorer {
    vocabulary: Vocabulary,
    images: BTreeMap<String, References>,
    frequency: DocumentFrequency,
    /// For CIDEr-D, instead of those of the references.
    given: Option<DocumentFrequency>,
    meteor: Option<Meteor>,
    spice: Option<Spice>,
}

/// The references of one image.
#[derive(Debug, Clone)]
struct References {
    /// Tokenized, with spaces between the tokens.
    lines: Vec<String>,
    /// Tokens, for ROUGE-L.
    tokens: Vec<Vec<u32>>,
    /// n-grams of words, for BLEU and CIDEr.
    counts: Vec<Counts>,
    vectors: Vec<Vector>,
    /// By the given frequencies.
    given_vectors: Vec<Vector>,
}

/// One image's part of the scores; 0 where it was not asked for.
#[derive(Debug, Clone, Copy, Default)]
struct ImageScores {
    bleu: Sums,
    meteor: f64,
    rouge_l: f64,
    cider: f64,
    cider_d: f64,
    spice: f64,
}

impl Scorer {
    /// Tokenizes `references` and counts in how many images each n-gram occurs.
    ///
    /// # Errors
    ///
    /// If there are none, or images have none: the ids are named.
    pub fn new(references: &Captions) -> Result<Self, EvalError> {
        if references.is_empty() {
            return Err(EvalError::NoReferences);
        }
        let without = references
            .iter()
            .filter(|(_, captions)| captions.is_empty());
        let ids: Vec<String> = without.map(|(id, _)| id.clone()).collect();
        if !ids.is_empty() {
            return Err(EvalError::ImagesWithoutReferences { ids });
        }
        let entries: Vec<(&String, &Vec<String>)> = references.iter().collect();
        // The tokens of each caption, and with spaces between them.
        let tokenized: Vec<Vec<(Vec<String>, String)>> = entries
            .par_iter()
            .map(|(_, captions)| {
                let with_line = |tokens: Vec<String>| {
                    let line = tokens.join(" ");
                    (tokens, line)
                };
                let tokens = captions.iter().map(|caption| rouge_tokens(caption));
                tokens.map(with_line).collect()
            })
            .collect();
        let mut vocabulary = Vocabulary::default();
        let images: Vec<(String, Vec<String>, Vec<Sentence>)> = entries
            .iter()
            .zip(tokenized)
            .map(|((id, _), captions)| {
                let numbered = captions.into_iter().map(|(tokens, line)| {
                    (line, Sentence::new(&tokens, |word| vocabulary.learn(word)))
                });
                let (lines, sentences) = numbered.unzip();
                ((*id).clone(), lines, sentences)
            })
            .collect();
        let images = images
            .into_par_iter()
            .map(|(id, lines, sentences)| {
                let counts = sentences
                    .iter()
                    .map(|sentence| Counts::new(sentence.words()))
                    .collect();
                let tokens = sentences
                    .into_iter()
                    .map(|sentence| sentence.tokens)
                    .collect();
                let references = References {
                    lines,
                    tokens,
                    counts,
                    vectors: Vec::new(),
                    given_vectors: Vec::new(),
                };
                (id, references)
            })
            .collect();
        Ok(Self::with_counts(vocabulary, images))
    }

    /// The scorer of some of the images, with the document frequencies of these only.
    ///
    /// # Errors
    ///
    /// If `ids` is empty or holds images that have no references here.
    pub fn subset<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Result<Self, EvalError> {
        let mut unknown = Vec::new();
        let mut images = BTreeMap::new();
        for id in ids {
            match self.images.get(id) {
                Some(image) => _ = images.insert(id, image),
                None => unknown.push(id.to_string()),
            }
        }
        if !unknown.is_empty() {
            return Err(EvalError::UnknownImages { ids: unknown });
        }
        if images.is_empty() {
            return Err(EvalError::NoReferences);
        }
        let images = images
            .into_iter()
            .map(|(id, image)| (id.to_string(), image.clone()))
            .collect();
        let mut subset = Self::with_counts(self.vocabulary.clone(), images);
        subset.give(self.given.clone());
        let ids = || subset.images.keys().map(String::as_str);
        subset.meteor = self.meteor.as_ref().map(|meteor| meteor.subset(ids()));
        subset.spice.clone_from(&self.spice);
        Ok(subset)
    }

    /// Scores CIDEr-D with the document frequencies of another set.
    #[must_use]
    pub fn with_document_frequencies(mut self, frequencies: &DocumentFrequencies) -> Self {
        let given = DocumentFrequency::given(frequencies, &mut self.vocabulary);
        self.give(Some(given));
        self
    }

    fn give(&mut self, given: Option<DocumentFrequency>) {
        if let Some(given) = &given {
            for references in self.images.values_mut() {
                let counts = references.counts.iter();
                references.given_vectors = counts.map(|counts| given.vector(counts)).collect();
            }
        }
        self.given = given;
    }

    /// Scores METEOR with its data, of which it reads the paraphrases that matter here.
    ///
    /// # Errors
    ///
    /// If the table of paraphrases is damaged.
    pub fn with_meteor(mut self, data: Arc<MeteorData>) -> Result<Self, EvalError> {
        let images = self.images.iter();
        let lines = images.map(|(id, image)| (id.as_str(), image.lines.as_slice()));
        self.meteor = Some(Meteor::new(data, lines)?);
        Ok(self)
    }

    /// Scores SPICE by its program.
    #[must_use]
    pub fn with_spice(mut self, spice: Spice) -> Self {
        self.spice = Some(spice);
        self
    }

    /// Counts in how many images each n-gram occurs, and weighs the references.
    fn with_counts(vocabulary: Vocabulary, mut images: BTreeMap<String, References>) -> Self {
        let counts: Vec<&[Counts]> = images
            .values()
            .map(|image| image.counts.as_slice())
            .collect();
        let frequency = DocumentFrequency::new(&counts);
        images.par_iter_mut().for_each(|(_, image)| {
            let counts = image.counts.iter();
            image.vectors = counts.map(|counts| frequency.vector(counts)).collect();
        });
        Self {
            vocabulary,
            images,
            frequency,
            given: None,
            meteor: None,
            spice: None,
        }
    }

    /// Scores one caption for each image.
    ///
    /// All values are finite. An empty candidate scores 0, with one exception that pycocoevalcap
    /// makes: its ROUGE-L is 1 if a reference is empty as well.
    ///
    /// # Errors
    ///
    /// If images have no candidate, or candidates no image: the ids are named.
    pub fn score(
        &self,
        candidates: &BTreeMap<String, String>,
        metrics: &[Metric],
    ) -> Result<Report, EvalError> {
        let unknown = candidates
            .keys()
            .filter(|id| !self.images.contains_key(*id));
        let ids: Vec<String> = unknown.cloned().collect();
        if !ids.is_empty() {
            return Err(EvalError::UnknownImages { ids });
        }
        let missing = self
            .images
            .keys()
            .filter(|id| !candidates.contains_key(*id));
        let ids: Vec<String> = missing.cloned().collect();
        if !ids.is_empty() {
            return Err(EvalError::MissingCandidates { ids });
        }
        // Both maps have the same keys in the same order.
        let pairs: Vec<(&String, &References)> =
            candidates.values().zip(self.images.values()).collect();
        let scored: Vec<(ImageScores, String)> = pairs
            .into_par_iter()
            .map(|(caption, references)| {
                let tokens = rouge_tokens(caption);
                let scores = self.score_image(&tokens, references, metrics);
                (scores, tokens.join(" "))
            })
            .collect();
        let (mut images, lines): (Vec<ImageScores>, Vec<String>) = scored.into_iter().unzip();
        let lines: Vec<(&str, &str)> = candidates
            .keys()
            .zip(&lines)
            .map(|(id, line)| (id.as_str(), line.as_str()))
            .collect();
        let mut meteor = 0.0;
        if metrics.contains(&Metric::Meteor) {
            let scores;
            (scores, meteor) = self.meteor(&lines)?;
            for (image, score) in images.iter_mut().zip(scores) {
                image.meteor = score;
            }
        }
        if metrics.contains(&Metric::Spice) {
            let scores = self.spice(&lines)?;
            for (image, (_, score)) in images.iter_mut().zip(scores) {
                image.spice = score;
            }
        }
        let bleu = images
            .iter()
            .fold(Sums::default(), |sums, image| sums.add(&image.bleu));
        let mean = |value: fn(&ImageScores) -> f64| {
            images.iter().map(value).sum::<f64>() / images.len() as f64
        };
        let total = ImageScores {
            bleu,
            meteor,
            rouge_l: mean(|image| image.rouge_l),
            cider: mean(|image| image.cider),
            cider_d: mean(|image| image.cider_d),
            spice: mean(|image| image.spice),
        };
        let scores = assemble(metrics, &total);
        let per_image = candidates
            .keys()
            .zip(&images)
            .map(|(id, image)| (id.clone(), assemble(metrics, image)))
            .collect();
        Ok(Report { scores, per_image })
    }

    /// Of each tokenized candidate, in their order, and of all.
    fn meteor(&self, candidates: &[(&str, &str)]) -> Result<(Vec<f64>, f64), EvalError> {
        let meteor = self.meteor.as_ref().ok_or(EvalError::Unavailable {
            metric: "METEOR",
            reason: "it needs the data of METEOR 1.5, which an installed pycocoevalcap has".into(),
        })?;
        Ok(meteor.score(candidates))
    }

    /// Of tokenized candidates, by image id, in their order.
    fn spice(&self, candidates: &[(&str, &str)]) -> Result<BTreeMap<String, f64>, EvalError> {
        let spice = self.spice.as_ref().ok_or(EvalError::Unavailable {
            metric: "SPICE",
            reason: "it needs the program of its authors (spice-1.0.jar)".into(),
        })?;
        let images: Vec<SpiceImage> = candidates
            .iter()
            .zip(self.images.values())
            .map(|((image_id, test), references)| SpiceImage {
                image_id,
                test,
                refs: &references.lines,
            })
            .collect();
        spice.score(&images)
    }

    /// Scores of parts of the images, each with its own document frequencies, as NoCaps has them of
    /// its domains. `whole` is what [`score`](Self::score) gave for all: SPICE, which looks at each
    /// image alone, is not computed again.
    ///
    /// # Errors
    ///
    /// As [`score`](Self::score).
    pub fn score_parts(
        &self,
        parts: &BTreeMap<String, Vec<String>>,
        candidates: &BTreeMap<String, String>,
        metrics: &[Metric],
        whole: &Report,
    ) -> Result<BTreeMap<String, Scores>, EvalError> {
        let others: Vec<Metric> = metrics
            .iter()
            .copied()
            .filter(|metric| *metric != Metric::Spice)
            .collect();
        let score = |ids: &[String]| -> Result<Scores, EvalError> {
            let subset = self.subset(ids.iter().map(String::as_str))?;
            let known = ids.iter().filter_map(|id| candidates.get_key_value(id));
            let own = known.map(|(id, caption)| (id.clone(), caption.clone()));
            let mut scores = subset.score(&own.collect(), &others)?.scores;
            if metrics.contains(&Metric::Spice) {
                let images = ids.iter().filter_map(|id| whole.per_image[id].get("SPICE"));
                scores.push("SPICE", images.sum::<f64>() / ids.len() as f64);
            }
            Ok(scores)
        };
        parts
            .iter()
            .map(|(name, ids)| Ok((name.clone(), score(ids)?)))
            .collect()
    }

    fn score_image(
        &self,
        tokens: &[String],
        references: &References,
        metrics: &[Metric],
    ) -> ImageScores {
        let mut new: HashMap<&str, u32> = HashMap::new();
        let known = self.vocabulary.len() as u32;
        let sentence = Sentence::new(tokens, |word| {
            self.vocabulary.get(word).unwrap_or_else(|| {
                let next = known + new.len() as u32;
                *new.entry(word).or_insert(next)
            })
        });
        let counts = Counts::new(sentence.words());
        let mut scores = ImageScores::default();
        for metric in metrics {
            match metric {
                Metric::Bleu => scores.bleu = Sums::new(&counts, &references.counts),
                Metric::RougeL => scores.rouge_l = rouge_l(&sentence.tokens, &references.tokens),
                // Of all images at once.
                Metric::Meteor | Metric::Spice => {}
                Metric::Cider => {
                    scores.cider =
                        weighted(&self.frequency, &counts, references, &references.vectors);
                }
                Metric::CiderD => {
                    let (frequency, vectors) = match &self.given {
                        Some(given) => (given, &references.given_vectors),
                        None => (&self.frequency, &references.vectors),
                    };
                    scores.cider_d = weighted(frequency, &counts, references, vectors);
                }
            }
        }
        scores
    }
}

fn weighted(
    frequency: &DocumentFrequency,
    counts: &Counts,
    references: &References,
    vectors: &[Vector],
) -> f64 {
    let vector = frequency.vector(counts);
    cider((counts, &vector), references.counts.iter().zip(vectors))
}

/// A tokenized caption in word numbers.
struct Sentence {
    tokens: Vec<u32>,
    /// Where they are not the tokens.
    words: Option<Vec<u32>>,
}

impl Sentence {
    /// The COCO tools split captions at spaces for ROUGE-L, but at all white space for BLEU and
    /// CIDEr; no word is left of an empty token there.
    fn new<'a>(tokens: &'a [String], mut number: impl FnMut(&'a str) -> u32) -> Self {
        let words = tokens
            .iter()
            .any(|token| token.is_empty() || token.contains(is_space))
            .then(|| {
                let words = tokens.iter().flat_map(|token| token.split(is_space));
                words
                    .filter(|word| !word.is_empty())
                    .map(&mut number)
                    .collect()
            });
        Self {
            tokens: tokens.iter().map(|token| number(token)).collect(),
            words,
        }
    }

    fn words(&self) -> &[u32] {
        self.words.as_ref().unwrap_or(&self.tokens)
    }
}

/// The tokens of a caption; to ROUGE-L, an empty caption is one empty token.
fn rouge_tokens(caption: &str) -> Vec<String> {
    let tokens = tokenize(caption);
    if tokens.is_empty() {
        vec![String::new()]
    } else {
        tokens
    }
}

/// The values of `metrics` in the order in which COCO prints them.
fn assemble(metrics: &[Metric], image: &ImageScores) -> Scores {
    let mut scores = Scores::default();
    if metrics.contains(&Metric::Bleu) {
        for (n, value) in image.bleu.bleu().into_iter().enumerate() {
            scores.push(&format!("Bleu_{}", n + 1), value);
        }
    }
    for (metric, name, value) in [
        (Metric::Meteor, "METEOR", image.meteor),
        (Metric::RougeL, "ROUGE_L", image.rouge_l),
        (Metric::Cider, "CIDEr", image.cider),
        (Metric::CiderD, "CIDErD", image.cider_d),
        (Metric::Spice, "SPICE", image.spice),
    ] {
        if metrics.contains(&metric) {
            scores.push(name, value);
        }
    }
    scores
}
