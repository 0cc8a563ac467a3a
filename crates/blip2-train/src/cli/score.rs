//! `blip2 score`.

use std::path::PathBuf;

use blip2_eval::{Metric, Scorer, Scores, read_coco_references, read_coco_results};
use serde::Serialize;

use super::{json, result_line};
use crate::RunError;
use crate::evaluate::METRICS;
use crate::report::score_line;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// COCO annotation file.
    #[arg(long, value_name = "FILE")]
    references: PathBuf,
    /// COCO result file.
    #[arg(long, value_name = "FILE")]
    candidates: PathBuf,
    /// Comma-separated: Bleu, ROUGE_L, CIDEr, CIDErD.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    metrics: Vec<Metric>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    scores: Scores,
}

pub(super) fn run(args: Args) -> Result<(), RunError> {
    let references = read_coco_references(&args.references)?;
    let candidates = read_coco_results(&args.candidates)?;
    let metrics = if args.metrics.is_empty() {
        METRICS
    } else {
        &args.metrics
    };
    let scores = Scorer::new(&references)?
        .score(&candidates, metrics)?
        .scores;
    if args.json {
        result_line(&json(&Output { scores })?)
    } else {
        result_line(&format!("{} (×100)", score_line(&scores)))
    }
}
