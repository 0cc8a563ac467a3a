//! References, prepared once, and candidates scored against them.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::bleu::Sums;
use crate::cider::{DocumentFrequency, Vector, cider};
use crate::ngrams::{Counts, Vocabulary};
use crate::rouge_l::rouge_l;
use crate::{Captions, EvalError, Metric, Report, Scores, tokenize};

/// The references of a set of images, tokenized and counted.
#[derive(Debug, Clone)]
pub struct Scorer {
    vocabulary: Vocabulary,
    images: BTreeMap<String, References>,
    frequency: DocumentFrequency,
}

#[derive(Debug, Clone)]
struct References {
    words: Vec<Vec<u32>>,
    counts: Vec<Counts>,
    vectors: Vec<Vector>,
}

/// One image's part of the scores.
struct ImageScores {
    bleu: Sums,
    rouge_l: f64,
    cider: f64,
}

impl Scorer {
    /// Prepares `references`.
    ///
    /// # Errors
    ///
    /// If there are none, or an image has none.
    pub fn new(references: &Captions) -> Result<Self, EvalError> {
        if references.is_empty() {
            return Err(EvalError::NoReferences);
        }
        if let Some((id, _)) = references.iter().find(|(_, captions)| captions.is_empty()) {
            return Err(EvalError::NoReference { id: id.clone() });
        }
        let entries: Vec<(&String, &Vec<String>)> = references.iter().collect();
        let tokenized: Vec<Vec<Vec<String>>> = entries
            .par_iter()
            .map(|(_, captions)| captions.iter().map(|caption| tokenize(caption)).collect())
            .collect();
        let mut vocabulary = Vocabulary::default();
        let words: Vec<Vec<Vec<u32>>> = tokenized
            .iter()
            .map(|captions| {
                captions
                    .iter()
                    .map(|words| numbers(words, &mut vocabulary))
                    .collect()
            })
            .collect();
        let counts: Vec<Vec<Counts>> = words
            .par_iter()
            .map(|captions| captions.iter().map(|words| Counts::new(words)).collect())
            .collect();
        let frequency = DocumentFrequency::new(counts.iter().map(Vec::as_slice));
        let images = entries
            .into_par_iter()
            .zip(words)
            .zip(counts)
            .map(|(((id, _), words), counts)| {
                let vectors = counts
                    .iter()
                    .map(|counts| frequency.vector(counts))
                    .collect();
                let references = References {
                    words,
                    counts,
                    vectors,
                };
                (id.clone(), references)
            })
            .collect();
        Ok(Self {
            vocabulary,
            images,
            frequency,
        })
    }

    /// Scores one caption for each image.
    ///
    /// # Errors
    ///
    /// If an image has no candidate, or a candidate no image.
    pub fn score(
        &self,
        candidates: &BTreeMap<String, String>,
        metrics: &[Metric],
    ) -> Result<Report, EvalError> {
        let mut unknown = candidates
            .keys()
            .filter(|id| !self.images.contains_key(*id));
        if let Some(first) = unknown.next() {
            return Err(EvalError::UnknownImages {
                first: first.clone(),
                count: 1 + unknown.count(),
            });
        }
        let mut missing = self
            .images
            .keys()
            .filter(|id| !candidates.contains_key(*id));
        if let Some(first) = missing.next() {
            return Err(EvalError::MissingCandidates {
                first: first.clone(),
                count: 1 + missing.count(),
            });
        }
        let entries: Vec<(&String, &String)> = candidates.iter().collect();
        let tokenized: Vec<Vec<String>> = entries
            .par_iter()
            .map(|(_, caption)| tokenize(caption))
            .collect();
        let mut vocabulary = self.vocabulary.clone();
        let words: Vec<Vec<u32>> = tokenized
            .iter()
            .map(|words| numbers(words, &mut vocabulary))
            .collect();
        let images: Vec<ImageScores> = entries
            .par_iter()
            .zip(&words)
            .map(|((id, _), words)| self.score_image(words, &self.images[*id]))
            .collect();

        let total = images
            .iter()
            .fold(Sums::default(), |sums, image| sums.add(&image.bleu));
        let mean = |value: fn(&ImageScores) -> f64| {
            images.iter().map(value).sum::<f64>() / images.len().max(1) as f64
        };
        let (rouge_l, cider) = (mean(|image| image.rouge_l), mean(|image| image.cider));
        let scores = assemble(metrics, &total, rouge_l, cider);
        let per_image = entries
            .iter()
            .zip(&images)
            .map(|((id, _), image)| {
                let scores = assemble(metrics, &image.bleu, image.rouge_l, image.cider);
                ((*id).clone(), scores)
            })
            .collect();
        Ok(Report { scores, per_image })
    }

    fn score_image(&self, words: &[u32], references: &References) -> ImageScores {
        let counts = Counts::new(words);
        ImageScores {
            bleu: Sums::new(&counts, &references.counts),
            rouge_l: rouge_l(words, &references.words),
            cider: cider(&self.frequency.vector(&counts), &references.vectors),
        }
    }
}

fn numbers(words: &[String], vocabulary: &mut Vocabulary) -> Vec<u32> {
    words.iter().map(|word| vocabulary.learn(word)).collect()
}

/// The values of `metrics` in the order in which COCO prints them.
fn assemble(metrics: &[Metric], bleu: &Sums, rouge_l: f64, cider: f64) -> Scores {
    let mut scores = Scores::default();
    if metrics.contains(&Metric::Bleu) {
        for (n, value) in bleu.bleu().into_iter().enumerate() {
            scores.push(&format!("Bleu_{}", n + 1), value);
        }
    }
    for (metric, name, value) in [
        (Metric::RougeL, "ROUGE_L", rouge_l),
        (Metric::Cider, "CIDEr", cider),
        (Metric::CiderD, "CIDErD", cider),
    ] {
        if metrics.contains(&metric) {
            scores.push(name, value);
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Metric; 3] = [Metric::Bleu, Metric::RougeL, Metric::Cider];

    fn references() -> Captions {
        let captions = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        [
            (
                "1".to_string(),
                captions(&["a dog runs on the grass", "the dog is running"]),
            ),
            (
                "2".to_string(),
                captions(&["two cats sleep on a red sofa", "cats on a sofa"]),
            ),
            ("x".to_string(), captions(&["a plane in the blue sky"])),
        ]
        .into()
    }

    fn candidates(texts: [&str; 3]) -> BTreeMap<String, String> {
        let ids = ["1", "2", "x"].map(str::to_string);
        ids.into_iter().zip(texts.map(str::to_string)).collect()
    }

    #[test]
    fn references_score_best_against_themselves() {
        let scorer = Scorer::new(&references()).unwrap();
        let own = candidates([
            "a dog runs on the grass",
            "cats on a sofa",
            "a plane in the blue sky",
        ]);
        let report = scorer.score(&own, &ALL).unwrap();
        for n in 1..=4 {
            let bleu = report.scores.get(&format!("Bleu_{n}")).unwrap();
            assert!((bleu - 1.0).abs() < 1e-6, "Bleu_{n} {bleu}");
        }
        assert_eq!(report.scores.get("ROUGE_L"), Some(1.0));
        assert!((report.per_image["x"].get("CIDEr").unwrap() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn wrong_sets_name_the_image() {
        let scorer = Scorer::new(&references()).unwrap();
        let mut unknown = candidates(["a", "b", "c"]);
        unknown.insert("9".into(), "d".into());
        let error = scorer.score(&unknown, &ALL).unwrap_err();
        assert!(error.to_string().contains("`9`"), "{error}");
        let mut missing = candidates(["a", "b", "c"]);
        missing.remove("2");
        let error = scorer.score(&missing, &ALL).unwrap_err();
        assert!(error.to_string().contains("`2`"), "{error}");
        assert!(Scorer::new(&Captions::new()).is_err());
        assert!(Scorer::new(&[("7".to_string(), vec![])].into()).is_err());
    }

    proptest! {
        /// Arbitrary text gives finite scores within their bounds.
        #[test]
        fn scores_are_finite_and_bounded(texts in proptest::array::uniform3("\\PC{0,40}")) {
            let texts = texts.each_ref().map(String::as_str);
            let scorer = Scorer::new(&references()).unwrap();
            let report = scorer.score(&candidates(texts), &ALL).unwrap();
            for (name, value) in report.scores.iter() {
                let most = if name == "CIDEr" { 10.0 } else { 1.0 };
                prop_assert!((0.0..=most + 1e-9).contains(&value), "{name} {value}");
            }
        }

        /// The order of references does not matter.
        #[test]
        fn the_order_of_references_does_not_matter(text in "(a|the|dog|cats|sofa| ){1,9}") {
            let candidates = candidates([&text, &text, &text]);
            let mut reversed = references();
            for captions in reversed.values_mut() {
                captions.reverse();
            }
            let score = |references: &Captions| {
                Scorer::new(references).unwrap().score(&candidates, &ALL).unwrap().scores
            };
            for ((name, a), (_, b)) in score(&references()).iter().zip(score(&reversed).iter()) {
                prop_assert!((a - b).abs() < 1e-12, "{name} {a} {b}");
            }
        }
    }
}
