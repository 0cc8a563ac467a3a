//! `blip2 score`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blip2_eval::{EvalError, Scores, read_coco_results, read_references};
use serde::Serialize;

use super::{json, metrics, result_line};
use crate::RunError;
use crate::captioning::read_candidates;
use crate::report::score_table;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// COCO annotation file, that of NoCaps, or Karpathy's JSON.
    #[arg(long, value_name = "FILE")]
    references: PathBuf,
    /// COCO result file; or what `caption --images --out` wrote (.jsonl, one or several).
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    candidates: Vec<PathBuf>,
    /// The split of Karpathy's JSON; test if nothing is said.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    #[command(flatten)]
    metrics: metrics::Args,
    /// One JSON object, fractions.
    #[arg(long)]
    json: bool,
    /// With --json: the scores of each image as well.
    #[arg(long, requires = "json")]
    per_image: bool,
}

#[derive(Serialize)]
struct Output {
    scores: Scores,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    domains: BTreeMap<String, Scores>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_image: Option<BTreeMap<String, Scores>>,
}

pub(super) fn run(args: Args) -> Result<(), RunError> {
    let references = read_references(&args.references, args.split.as_deref())?;
    let candidates = read(&args.candidates, &args.references)?;
    let (scorer, metrics) = args.metrics.scorer(&references.captions)?;
    let report = scorer
        .score(&candidates, &metrics)
        .map_err(|source| match source {
            EvalError::MissingCandidates { .. } | EvalError::UnknownImages { .. } => {
                RunError::Captions {
                    file: args.candidates.first().cloned().unwrap_or_default(),
                    source,
                }
            }
            source => source.into(),
        })?;
    let domains = scorer.score_parts(&references.domains, &candidates, &metrics, &report)?;
    if args.json {
        return result_line(&json(&Output {
            scores: report.scores,
            domains,
            per_image: args.per_image.then_some(report.per_image),
        })?);
    }
    let mut rows: Vec<(&str, &Scores)> = domains
        .iter()
        .map(|(name, scores)| (name.as_str(), scores))
        .collect();
    // As NoCaps orders them; other names stay in the order of the alphabet.
    rows.sort_by_key(|(name, _)| DOMAINS.iter().position(|domain| domain == name));
    let whole = if rows.is_empty() { "" } else { "overall" };
    rows.push((whole, &report.scores));
    result_line(&score_table(&rows))
}

/// The caption of each image, by its id.
fn read(files: &[PathBuf], references: &Path) -> Result<BTreeMap<String, String>, RunError> {
    let is_lines = |file: &PathBuf| file.extension().is_some_and(|end| end == "jsonl");
    match files {
        [results] if !is_lines(results) => Ok(read_coco_results(results)?),
        files if files.iter().all(is_lines) => read_candidates(files, references),
        _ => Err(RunError::Usage(
            "--candidates takes one COCO result file, or .jsonl files alone".into(),
        )),
    }
}

const DOMAINS: [&str; 3] = ["in-domain", "near-domain", "out-domain"];
