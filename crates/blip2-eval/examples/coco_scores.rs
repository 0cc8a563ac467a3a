//! Scores a COCO result file against a COCO annotation file, the whole set and each image, as JSON.
//!
//! `cargo run --release -p blip2-eval --example coco_scores -- captions.json results.json [METEOR_DATA]`

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use blip2_eval::{MeteorData, Metric, Scorer, Scores, read_coco_results, read_references};
use serde::Serialize;

#[derive(Serialize)]
struct Output {
    scores: Scores,
    per_image: BTreeMap<String, Scores>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [references, candidates, meteor @ ..] = paths.as_slice() else {
        return Err("usage: coco_scores REFERENCES CANDIDATES [METEOR_DATA]".into());
    };
    let mut scorer = Scorer::new(&read_references(references, None)?.captions)?;
    let mut metrics = vec![Metric::Bleu, Metric::RougeL, Metric::Cider];
    if let Some(folder) = meteor.first() {
        scorer = scorer.with_meteor(Arc::new(MeteorData::open(folder)?))?;
        metrics.push(Metric::Meteor);
    }
    let report = scorer.score(&read_coco_results(candidates)?, &metrics)?;
    let output = Output {
        scores: report.scores,
        per_image: report.per_image,
    };
    println!("{}", serde_json::to_string(&output)?);
    // The end of the process frees it all at once.
    std::mem::forget((scorer, output));
    Ok(())
}
