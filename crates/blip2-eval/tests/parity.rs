//! Scores against pycocoevalcap's: values of `tests/reference/eval.py`.

use std::collections::BTreeMap;
use std::path::Path;

use blip2_eval::{Metric, Scorer, read_coco_references, read_coco_results};

/// Both sides compute in f64; sums are taken in another order.
const TOLERANCE: f64 = 1e-9;

#[test]
fn matches_pycocoevalcap_scores() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/eval");
    let references = read_coco_references(&folder.join("references.json")).unwrap();
    let candidates = read_coco_results(&folder.join("candidates.json")).unwrap();
    let expected = std::fs::read(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, f64> = serde_json::from_slice(&expected).unwrap();
    let metrics = [Metric::Bleu, Metric::RougeL, Metric::Cider];
    let report = Scorer::new(&references)
        .unwrap()
        .score(&candidates, &metrics)
        .unwrap();
    assert_eq!(report.scores.iter().count(), expected.len());
    for (name, value) in report.scores.iter() {
        let difference = (value - expected[name]).abs();
        assert!(difference < TOLERANCE, "{name}: {value} {}", expected[name]);
    }
}
