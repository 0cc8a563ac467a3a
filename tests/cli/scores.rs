//! `blip2 score`: every format of references, tables and JSON, METEOR's and SPICE's needs.

use std::fs;

use blip2_tests::{Experiment, expect_code, stderr, stdout};
use serde_json::{Value, json};

const RESULTS: &str = "score --candidates results.json --references";

/// References in three formats, and results for them.
fn experiment() -> Experiment {
    let mut experiment = Experiment::new();
    // No METEOR of this machine.
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX", "HOME"] {
        experiment.set_env(name, experiment.path("nothing").to_str().unwrap());
    }
    let captions = [
        ("0", "A dog runs on the grass."),
        ("1", "Two cats sleep."),
        ("2", "a red bus"),
    ];
    let annotations: Vec<Value> = captions
        .iter()
        .enumerate()
        .map(|(id, (image, caption))| json!({"image_id": image.parse::<u32>().unwrap(), "id": id, "caption": caption}))
        .collect();
    let images = |domains: [&str; 3]| -> Vec<Value> {
        let images = domains.iter().enumerate();
        images
            .map(|(id, domain)| json!({"id": id, "domain": domain}))
            .collect()
    };
    let nocaps = json!({"images": images(["out-domain", "in-domain", "in-domain"]), "annotations": annotations});
    let karpathy: Vec<Value> = captions
        .iter()
        .map(|(image, caption)| {
            json!({"imgid": image.parse::<u32>().unwrap(), "filename": "x.jpg", "split": "test",
                   "sentences": [{"raw": caption}]})
        })
        .collect();
    let results: Vec<Value> = captions
        .iter()
        .zip(["a dog on grass", "two cats sleep", "a red car"])
        .map(|((image, _), caption)| json!({"image_id": image, "caption": caption}))
        .collect();
    for (name, content) in [
        ("coco.json", json!({"annotations": annotations})),
        ("nocaps.json", nocaps),
        (
            "more.json",
            json!({"annotations": [annotations[0], annotations[1], annotations[2], {"image_id": 7, "caption": "x"}]}),
        ),
        ("fewer.json", json!({"annotations": [annotations[0]]})),
        ("karpathy.json", json!({"images": karpathy})),
        ("results.json", json!(results)),
        (
            "df.json",
            json!({"ref_len": 100, "document_frequency": {"a": 90, "dog": 3}}),
        ),
    ] {
        fs::write(experiment.path(name), content.to_string()).unwrap();
    }
    experiment
}

fn scores(experiment: &Experiment, arguments: &str) -> Value {
    let output = experiment.blip2(&format!("{RESULTS} {arguments} --json"));
    expect_code(&output, 0);
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[test]
fn every_format_gives_the_same_scores() {
    let experiment = experiment();
    let coco = scores(&experiment, "coco.json");
    assert!(coco["scores"]["CIDEr"].as_f64().unwrap() > 1.0);
    assert!(coco["scores"].get("METEOR").is_none());
    assert_eq!(
        coco["scores"],
        scores(&experiment, "karpathy.json --split test")["scores"]
    );
    let nocaps = scores(&experiment, "nocaps.json --per-image");
    assert_eq!(coco["scores"], nocaps["scores"]);
    // The only image of its domain: its own score, but for the document frequencies.
    assert_eq!(
        nocaps["domains"]["out-domain"]["Bleu_1"],
        nocaps["per_image"]["0"]["Bleu_1"]
    );
    assert_eq!(nocaps["domains"]["in-domain"].as_object().unwrap().len(), 6);
    let given = scores(&experiment, "coco.json --document-frequencies df.json");
    assert_ne!(given["scores"]["CIDErD"], given["scores"]["CIDEr"]);
}

#[test]
fn the_table_has_a_row_for_each_domain() {
    let experiment = experiment();
    let output = experiment.blip2(&format!("{RESULTS} nocaps.json --metrics Bleu,CIDEr"));
    expect_code(&output, 0);
    let table = stdout(&output);
    let rows: Vec<&str> = table
        .lines()
        .map(|row| row.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(rows, ["(×100)", "in-domain", "out-domain", "overall"]);
    assert!(
        table
            .lines()
            .all(|row| row.chars().count() == table.lines().next().unwrap().chars().count())
    );
    assert!(!table.contains("ROUGE_L") && table.contains("Bleu_4"));
}

#[test]
fn what_others_metrics_need_is_named() {
    let experiment = experiment();
    let output = experiment.blip2(&format!("{RESULTS} coco.json"));
    expect_code(&output, 0);
    // An installation for the whole machine may be there.
    let note = stderr(&output);
    assert!(
        note.contains("METEOR is left out") || stdout(&output).contains("METEOR"),
        "{note}"
    );
    for (arguments, code, message) in [
        (
            "coco.json --metrics METEOR --meteor-data data",
            1,
            "METEOR can't be computed",
        ),
        ("coco.json --metrics SPICE", 1, "spice-1.0.jar"),
        ("coco.json --metrics CIDErX", 2, "unknown metric"),
        ("coco.json --split test", 1, "has no splits"),
        ("karpathy.json --split dev", 1, "there are: test (3)"),
        (
            "coco.json --document-frequencies results.json",
            1,
            "results.json",
        ),
        ("results.json", 1, "results.json"),
        (
            "more.json",
            1,
            "results.json: without a candidate caption: image `7`",
        ),
        (
            "fewer.json",
            1,
            "results.json: not among the references: 2 images: `1`, `2`",
        ),
    ] {
        let output = experiment.blip2(&format!("{RESULTS} {arguments}"));
        expect_code(&output, code);
        assert!(
            stderr(&output).contains(message),
            "{arguments}: {}",
            stderr(&output)
        );
    }
}
