//! What must hold for any captions.

use std::collections::BTreeMap;

use blip2_eval::{Captions, EvalError, Metric, Report, Scorer};
use proptest::prelude::*;

const ALL: [Metric; 4] = [Metric::Bleu, Metric::RougeL, Metric::Cider, Metric::CiderD];

/// Sums in another order differ by rounding only.
const ROUNDING: f64 = 1e-12;

fn captions(texts: &[&[&str]]) -> Captions {
    let id = |index: usize| format!("image {index}");
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    texts
        .iter()
        .enumerate()
        .map(|(index, texts)| (id(index), owned(texts)))
        .collect()
}

fn references() -> Captions {
    captions(&[
        &["a dog runs on the grass", "The dog is running."],
        &["two cats sleep on a red sofa", "cats on a sofa"],
        &["a plane in the blue sky"],
    ])
}

fn score(references: &Captions, candidates: &[String]) -> Report {
    let candidates = references
        .keys()
        .cloned()
        .zip(candidates.iter().cloned())
        .collect();
    Scorer::new(references)
        .unwrap()
        .score(&candidates, &ALL)
        .unwrap()
}

fn assert_close(a: &Report, b: &Report, names: &[&str]) {
    for (id, scores) in &a.per_image {
        for (name, value) in scores.iter().filter(|(name, _)| names.contains(name)) {
            let other = b.per_image[id].get(name).unwrap();
            assert!(
                (value - other).abs() < ROUNDING,
                "{id} {name} {value} {other}"
            );
        }
    }
}

#[test]
fn references_score_full_marks_against_themselves() {
    let own = [
        "a dog runs on the grass",
        "cats on a sofa",
        "a plane in the blue sky",
    ];
    let report = score(&references(), &own.map(String::from));
    for n in 1..=4 {
        let bleu = report.scores.get(&format!("Bleu_{n}")).unwrap();
        // The COCO tools add 1e-9 to the counts.
        assert!((bleu - 1.0).abs() < 1e-6, "Bleu_{n} {bleu}");
    }
    assert_eq!(report.scores.get("ROUGE_L"), Some(1.0));
    let only_reference = report.per_image["image 2"].get("CIDEr").unwrap();
    assert!((only_reference - 10.0).abs() < 1e-9, "{only_reference}");
    assert_eq!(report.scores.get("CIDEr"), report.scores.get("CIDErD"));
}

#[test]
fn empty_candidates_score_zero() {
    for empty in ["", " ", "...", "\n"] {
        let report = score(&references(), &[empty; 3].map(String::from));
        for (name, value) in report.scores.iter() {
            assert_eq!(value, 0.0, "{name} of {empty:?}");
        }
    }
}

#[test]
fn scores_are_serialised_in_the_order_of_the_coco_tools() {
    let report = score(&references(), &["a", "b", "c"].map(String::from));
    let json = serde_json::to_string(&report.scores).unwrap();
    let names = [
        "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr", "CIDErD",
    ];
    let places = names.map(|name| json.find(&format!("\"{name}\":")).unwrap());
    assert!(places.is_sorted(), "{json}");
    let read: blip2_eval::Scores = serde_json::from_str(&json).unwrap();
    for ((name, value), (read_name, read_value)) in report.scores.iter().zip(read.iter()) {
        assert!(name == read_name && (value - read_value).abs() < ROUNDING);
    }
}

#[test]
fn metrics_are_known_by_name() {
    for (name, metric) in [
        ("Bleu", Metric::Bleu),
        ("ROUGE_L", Metric::RougeL),
        ("CIDEr", Metric::Cider),
    ] {
        assert_eq!(name.parse::<Metric>().unwrap(), metric);
    }
    let error = "BERTScore".parse::<Metric>().unwrap_err().to_string();
    assert!(
        error.contains("BERTScore") && error.contains("ROUGE_L, CIDEr"),
        "{error}"
    );
}

#[test]
fn wrong_sets_name_the_images() {
    let scorer = Scorer::new(&references()).unwrap();
    let good: BTreeMap<String, String> = references()
        .keys()
        .map(|id| (id.clone(), "a".into()))
        .collect();
    let mut unknown = good.clone();
    unknown.extend((0..9).map(|index| (format!("x{index}"), String::new())));
    let error = scorer.score(&unknown, &ALL).unwrap_err().to_string();
    assert!(
        error.contains("9 images: `x0`, `x1`") && !error.contains("x5"),
        "{error}"
    );
    let mut missing = good.clone();
    missing.remove("image 1");
    let error = scorer.score(&missing, &ALL).unwrap_err().to_string();
    assert!(
        error.contains("candidate") && error.contains("`image 1`"),
        "{error}"
    );
    assert!(matches!(
        Scorer::new(&Captions::new()),
        Err(EvalError::NoReferences)
    ));
    let error = Scorer::new(&captions(&[&["a"], &[]]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("`image 1`"), "{error}");
    assert!(matches!(scorer.subset([]), Err(EvalError::NoReferences)));
    let error = scorer.subset(["image 0", "nine"]).unwrap_err().to_string();
    assert!(error.contains("`nine`"), "{error}");
}

/// Words of the references, others, and all kinds of text.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "((a|the|dog|cats|sofa|sky|zebra|grass)( |, |\\. )){0,9}",
        "\\PC{0,30}",
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn scores_are_finite_and_within_bounds(texts in proptest::collection::vec(text(), 3)) {
        let report = score(&references(), &texts);
        for scores in report.per_image.values().chain([&report.scores]) {
            for (name, value) in scores.iter() {
                let most = if name.starts_with("CIDEr") { 10.0 } else { 1.0 };
                prop_assert!((0.0..=most + 1e-6).contains(&value), "{} {}", name, value);
            }
        }
    }

    #[test]
    fn arbitrary_references_give_finite_scores(texts in proptest::collection::vec(text(), 8)) {
        let captions: Captions = [("1", &texts[..3]), ("2", &texts[3..5]), ("3", &texts[5..6])]
            .map(|(id, texts)| (id.to_string(), texts.to_vec()))
            .into();
        let report = score(&captions, &[&texts[5..], &[String::new()]].concat());
        let images = report.per_image.values();
        prop_assert!(images.flat_map(|scores| scores.iter()).all(|(_, value)| value.is_finite()));
    }

    #[test]
    fn the_order_of_references_does_not_matter(texts in proptest::collection::vec(text(), 3)) {
        let mut reversed = references();
        reversed.values_mut().for_each(|captions| captions.reverse());
        let names = ["Bleu_1", "Bleu_4", "ROUGE_L", "CIDEr"];
        assert_close(&score(&references(), &texts), &score(&reversed, &texts), &names);
    }

    #[test]
    fn the_order_of_images_does_not_matter(texts in proptest::collection::vec(text(), 3)) {
        // The first image becomes the last one.
        let rename = |id: &String| id.replace("image 0", "last");
        let other: Captions = references().iter().map(|(id, c)| (rename(id), c.clone())).collect();
        let ids: Vec<String> = references().keys().cloned().collect();
        let candidates: BTreeMap<String, String> =
            ids.iter().map(rename).zip(texts.iter().cloned()).collect();
        let moved = Scorer::new(&other).unwrap().score(&candidates, &ALL).unwrap();
        for ((name, a), (_, b)) in score(&references(), &texts).scores.iter().zip(moved.scores.iter()) {
            prop_assert!((a - b).abs() < ROUNDING, "{} {} {}", name, a, b);
        }
    }

    /// BLEU and ROUGE-L of an image do not see the others; CIDEr sees them in the document
    /// frequencies only, so that the scorer of the subset gives the old value again.
    #[test]
    fn an_unrelated_image_changes_document_frequencies_only(mut texts in proptest::collection::vec(text(), 3)) {
        let before = score(&references(), &texts);
        let mut more = references();
        more.insert("zebra".into(), vec!["zebras drink water".into()]);
        let small = Scorer::new(&more).unwrap().subset(references().keys().map(String::as_str)).unwrap();
        let candidates = references().into_keys().zip(texts.iter().cloned()).collect();
        let again = small.score(&candidates, &ALL).unwrap();
        assert_close(&before, &again, &["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]);
        texts.push("zebras".into());
        let after = score(&more, &texts);
        assert_close(&before, &after, &["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L"]);
    }
}
