//! Tokens and scores against pycocoevalcap 1.2, whose tokenizer is Stanford's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blip2_eval::{
    Captions, DocumentFrequencies, Metric, Scorer, Scores, read_coco_results, read_references,
    tokenize,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Both sides compute in f64; sums are taken in another order.
const TOLERANCE: f64 = 1e-9;

const METRICS: [Metric; 3] = [Metric::Bleu, Metric::RougeL, Metric::Cider];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/eval")
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let bytes = std::fs::read(folder().join(name)).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn assert_scores(what: &str, actual: &Scores, expected: &BTreeMap<String, f64>) {
    for (name, value) in actual.iter() {
        let difference = (value - expected[name]).abs();
        assert!(
            difference < TOLERANCE,
            "{what} {name}: {value} {}",
            expected[name]
        );
    }
}

/// Captions full of what is hard: quotes, contractions, numbers, addresses, abbreviations, emoji.
#[test]
fn matches_stanford_tokens_line_by_line() {
    let lines: Vec<(String, String)> = read("tokens.json");
    assert!(lines.len() > 1000);
    for (caption, expected) in lines {
        assert_eq!(tokenize(&caption).join(" "), expected, "{caption:?}");
    }
}

#[test]
fn matches_pycocoevalcap_scores_of_plain_captions() {
    let references = read_references(&folder().join("references.json"), None)
        .unwrap()
        .captions;
    let candidates = read_coco_results(&folder().join("candidates.json")).unwrap();
    let report = Scorer::new(&references)
        .unwrap()
        .score(&candidates, &METRICS)
        .unwrap();
    assert_scores("all", &report.scores, &read("expected.json"));
}

#[derive(Deserialize)]
struct Given {
    #[serde(rename = "CIDErD")]
    total: f64,
    per_image: BTreeMap<String, f64>,
}

/// The file is a pickle, as the authors of CIDEr-D have theirs.
#[test]
fn matches_cider_d_with_the_document_frequencies_of_another_set() {
    let references = read_references(&folder().join("references.json"), None).unwrap();
    let candidates = read_coco_results(&folder().join("candidates.json")).unwrap();
    let frequencies = folder().join("document_frequencies.p");
    let scorer = Scorer::new(&references.captions)
        .unwrap()
        .with_document_frequencies(&DocumentFrequencies::read(&frequencies).unwrap());
    let metrics = [Metric::Cider, Metric::CiderD];
    let report = scorer.score(&candidates, &metrics).unwrap();
    let expected: Given = read("cider_d.json");
    let close = |actual: Option<f64>, expected: f64| (actual.unwrap() - expected).abs() < TOLERANCE;
    assert!(close(report.scores.get("CIDErD"), expected.total));
    assert!(!close(report.scores.get("CIDEr"), expected.total));
    for (id, scores) in &report.per_image {
        assert!(close(scores.get("CIDErD"), expected.per_image[id]), "{id}");
    }
}

#[derive(Deserialize)]
struct Case {
    references: Captions,
    candidates: BTreeMap<String, String>,
    scores: BTreeMap<String, f64>,
    per_image: BTreeMap<String, BTreeMap<String, f64>>,
}

#[test]
fn matches_pycocoevalcap_scores_of_hard_captions() {
    let case: Case = read("scores.json");
    let report = Scorer::new(&case.references)
        .unwrap()
        .score(&case.candidates, &METRICS)
        .unwrap();
    assert_scores("all", &report.scores, &case.scores);
    for (id, scores) in &report.per_image {
        assert_scores(id, scores, &case.per_image[id]);
    }
}
