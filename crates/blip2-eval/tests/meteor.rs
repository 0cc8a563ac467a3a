//! METEOR against pycocoevalcap's, on small data of our own that a copy of METEOR's jar was given
//! (tests/reference/meteor.py). With METEOR's own data: tests/reference/eval_check.py.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blip2_eval::{Captions, MeteorData, Metric, Report, Scorer};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde::Deserialize;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Both compute the same in f64.
const TOLERANCE: f64 = 1e-12;

fn reference(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/meteor");
    folder.join(name)
}

/// A folder as METEOR's: a jar, and a table of paraphrases.
fn data_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut jar = ZipWriter::new(File::create(folder.path().join("meteor-1.5.jar")).unwrap());
    for (name, file) in [
        ("synonym/english.synsets", "synsets"),
        ("synonym/english.exceptions", "exceptions"),
        ("function/english.words", "function_words"),
        ("nonbreaking/english.prefixes", "prefixes"),
    ] {
        jar.start_file(name, SimpleFileOptions::default()).unwrap();
        let bytes = fs::read(reference("data").join(file)).unwrap();
        jar.write_all(&bytes).unwrap();
    }
    jar.finish().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    write_table(
        folder.path(),
        &fs::read(reference("data/paraphrases")).unwrap(),
    );
    folder
}

fn write_table(folder: &Path, bytes: &[u8]) {
    let table = File::create(folder.join("data/paraphrase-en.gz")).unwrap();
    let mut table = GzEncoder::new(table, Compression::default());
    table.write_all(bytes).unwrap();
    table.finish().unwrap();
}

#[derive(Deserialize)]
struct Case {
    references: Captions,
    candidates: BTreeMap<String, String>,
    score: f64,
    per_image: BTreeMap<String, f64>,
}

fn case() -> Case {
    serde_json::from_slice(&fs::read(reference("scores.json")).unwrap()).unwrap()
}

fn scorer(case: &Case) -> Scorer {
    let folder = data_folder();
    let data = Arc::new(MeteorData::open(folder.path()).unwrap());
    Scorer::new(&case.references)
        .unwrap()
        .with_meteor(data)
        .unwrap()
}

fn meteor(report: &Report) -> f64 {
    report.scores.get("METEOR").unwrap()
}

#[test]
fn matches_pycocoevalcap_on_every_image_and_the_whole_set() {
    let case = case();
    let report = scorer(&case)
        .score(&case.candidates, &[Metric::Meteor])
        .unwrap();
    for (id, scores) in &report.per_image {
        let (actual, expected) = (scores.get("METEOR").unwrap(), case.per_image[id]);
        assert!(
            (actual - expected).abs() < TOLERANCE,
            "{id}: {actual} {expected} {:?} {:?}",
            case.candidates[id],
            case.references[id]
        );
    }
    assert!((meteor(&report) - case.score).abs() < TOLERANCE);
}

#[test]
fn a_scorer_is_used_again_and_a_subset_scores_its_own_images() {
    let case = case();
    let scorer = scorer(&case);
    let ids: Vec<&str> = case
        .references
        .keys()
        .map(String::as_str)
        .take(40)
        .collect();
    let candidates: BTreeMap<String, String> = ids
        .iter()
        .map(|id| ((*id).to_string(), case.candidates[*id].clone()))
        .collect();
    let subset = scorer.subset(ids).unwrap();
    let subset = subset.score(&candidates, &[Metric::Meteor]).unwrap();
    for (id, scores) in &subset.per_image {
        assert!((scores.get("METEOR").unwrap() - case.per_image[id]).abs() < TOLERANCE);
    }
    // Other candidates, and then the first ones again.
    let own = case.references.iter();
    let own = own
        .map(|(id, captions)| (id.clone(), captions[0].clone()))
        .collect();
    let itself = scorer.score(&own, &[Metric::Meteor]).unwrap();
    assert!(meteor(&itself) > 0.99, "{}", meteor(&itself));
    let again = scorer.score(&case.candidates, &[Metric::Meteor]).unwrap();
    assert!((meteor(&again) - case.score).abs() < TOLERANCE);
}

#[test]
fn what_lacks_or_is_damaged_is_named() {
    let case = case();
    let scorer = || Scorer::new(&case.references).unwrap();
    let error = scorer()
        .score(&case.candidates, &[Metric::Meteor])
        .unwrap_err();
    assert!(
        error.to_string().contains("METEOR can't be computed"),
        "{error}"
    );

    let folder = data_folder();
    let open = || MeteorData::open(folder.path()).map(Arc::new);
    write_table(folder.path(), b"0.1\na dog\n");
    let error = scorer()
        .with_meteor(open().unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("paraphrase-en.gz: entry 0 is not whole"),
        "{error}"
    );
    fs::write(folder.path().join("data/paraphrase-en.gz"), "no gzip").unwrap();
    let error = scorer()
        .with_meteor(open().unwrap())
        .unwrap_err()
        .to_string();
    assert!(error.contains("paraphrase-en.gz"), "{error}");
    fs::remove_file(folder.path().join("data/paraphrase-en.gz")).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("paraphrase-en.gz: is not there"), "{error}");
    write_table(folder.path(), b"");
    fs::write(folder.path().join("meteor-1.5.jar"), "no jar").unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("meteor-1.5.jar"), "{error}");
    let error = MeteorData::open(&folder.path().join("nothing"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("nothing"), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_captions_give_scores_between_0_and_1_that_no_order_changes(
        texts in prop::collection::vec(prop::collection::vec("(\\PC{0,30}|[a ,.'0-9|-]{0,20})", 2..4), 1..4)
    ) {
        let folder = data_folder();
        let data = Arc::new(MeteorData::open(folder.path()).unwrap());
        let ids = |index: usize| format!("{index}");
        let references: Captions = texts.iter().enumerate().map(|(index, texts)| (ids(index), texts[1..].to_vec())).collect();
        let candidates = texts.iter().enumerate().map(|(index, texts)| (ids(index), texts[0].clone())).collect();
        let score = |references: &Captions| {
            let scorer = Scorer::new(references).unwrap().with_meteor(Arc::clone(&data)).unwrap();
            scorer.score(&candidates, &[Metric::Meteor]).unwrap()
        };
        let report = score(&references);
        for scores in report.per_image.values() {
            let value = scores.get("METEOR").unwrap();
            prop_assert!((0.0..=1.0).contains(&value), "{value}");
        }
        let reversed = references.iter().map(|(id, texts)| (id.clone(), texts.iter().rev().cloned().collect()));
        for (id, scores) in score(&reversed.collect()).per_image {
            prop_assert_eq!(scores.get("METEOR"), report.per_image[&id].get("METEOR"));
        }
    }
}
