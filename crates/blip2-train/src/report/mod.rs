//! `report.html`: one self-contained page that shows what a run did.

mod captions;
mod curves;
mod memory;
mod page;
mod parameters;
mod retrieval;
mod samples;

use std::sync::Arc;

use blip2::Blip2Caption;
use blip2::stage1::Blip2Qformer;
use blip2_data::CaptionSample;
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_eval::{RetrievalScores, Scores};

pub use memory::{Estimate, memory};
pub use parameters::{Frozen, PartRow, parameter_rows, parameter_table, stage1_rows, thousands};

use crate::RunError;
use crate::recipe::Recipe;
use crate::run::{MetricsFile, Record, RunFolder, write_atomic};
use crate::train::{FinalScores, Stage1Scores};

/// Images of each test split in the grid.
const GRID_IMAGES: usize = 18;

/// A test split with its captions: name, samples, captioned samples.
pub type Shown = (String, Arc<Vec<Sample>>, Vec<CaptionSample>);

/// Writes the report of a captioner's finished run.
///
/// # Errors
///
/// If a file can't be read or written.
pub fn write(
    folder: &RunFolder,
    recipe: &Recipe,
    model: &Blip2Caption,
    scores: &FinalScores,
    shown: &[Shown],
    skips: &SkipLog,
) -> Result<(), RunError> {
    let rates = scores.splits.iter();
    let page = page::Page {
        folder,
        recipe,
        parts: parameter_rows(model.architecture(), &Frozen::of(model)),
        frozen_towers: &scores.frozen_towers,
        scores: captions::scores_section(scores),
        images: captions::images_section(shown)?,
        rates: rates
            .map(|(split, scores)| (format!("captions of {split}"), scores.captions_per_s))
            .collect(),
        skips,
        records: &records(folder)?,
    };
    write_atomic(&folder.report(), page.html()?.as_bytes())
}

/// Writes the report of a finished run of stage 1.
///
/// # Errors
///
/// If a file can't be read or written.
pub fn write_stage1(
    folder: &RunFolder,
    recipe: &Recipe,
    model: &Blip2Qformer,
    scores: &Stage1Scores,
    skips: &SkipLog,
) -> Result<(), RunError> {
    let page = page::Page {
        folder,
        recipe,
        parts: stage1_rows(model),
        frozen_towers: &scores.frozen_towers,
        scores: retrieval::scores_section(scores),
        images: String::new(),
        rates: Vec::new(),
        skips,
        records: &records(folder)?,
    };
    write_atomic(&folder.report(), page.html()?.as_bytes())
}

fn records(folder: &RunFolder) -> Result<Vec<Record>, RunError> {
    match folder.metrics().exists() {
        true => MetricsFile::read(&folder.metrics()),
        false => Ok(Vec::new()),
    }
}

/// A table of scores ×100, a row for each named set of images; one set needs no name.
pub fn score_table(rows: &[(&str, &Scores)]) -> String {
    const CORNER: &str = "(×100)";
    let names = rows.iter().map(|(name, _)| name.chars().count());
    let width = names.max().unwrap_or(0).max(CORNER.chars().count());
    let mut table = format!("{CORNER:<width$}");
    if let Some((_, scores)) = rows.first() {
        for (name, _) in scores.iter() {
            table += &format!("  {name:>7}");
        }
    }
    for (name, scores) in rows {
        table += &format!("\n{name:<width$}");
        for (_, value) in scores.iter() {
            table += &format!("  {:>7.1}", value * 100.0);
        }
    }
    table
}

/// `Bleu_4 41.2  ROUGE_L 60.3  CIDEr 123.4`: ×100, as papers print them.
pub fn score_line(scores: &Scores) -> String {
    scores
        .iter()
        .map(|(name, value)| format!("{name} {:.1}", value * 100.0))
        .collect::<Vec<_>>()
        .join("  ")
}

/// `i2t_R@1 41.2  …  r_mean 60.3`: ×100, as papers print them.
pub fn recall_line(scores: &RetrievalScores) -> String {
    scores
        .iter()
        .map(|(name, value)| format!("{name} {:.1}", value * 100.0))
        .collect::<Vec<_>>()
        .join("  ")
}
