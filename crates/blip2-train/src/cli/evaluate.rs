//! `blip2 evaluate`.

use std::path::PathBuf;

use blip2_data::annotations::OnError;
use blip2_data::skips::SkipLog;
use blip2_eval::Scores;
use burn::tensor::Device;
use serde::Serialize;

use super::model::load;
use super::{bar, json, result_line};
use crate::RunError;
use crate::data::read_split;
use crate::evaluate::{EvalSettings, METRICS, caption, loss, score};
use crate::recipe::SplitConfig;
use crate::report::score_line;
use crate::run::StopSignal;

/// Images a batch where the run's recipe does not say.
const BATCH_SIZE: usize = 16;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run folder.
    #[arg(long, value_name = "DIR_OR_RUN")]
    model: PathBuf,
    /// COCO captions JSON, Karpathy JSON or JSONL.
    #[arg(long, value_name = "FILE")]
    annotations: PathBuf,
    /// The folder that the annotations' file names are relative to.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// The split inside a Karpathy file.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// The text that captions go on from, instead of the model's.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Leaves out captions and scores.
    #[arg(long)]
    loss_only: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    loss: f64,
    tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    scores: Option<Scores>,
}

pub(super) fn run(args: Args, device: &Device) -> Result<(), RunError> {
    let split = SplitConfig {
        name: None,
        annotations: args.annotations,
        images: args.images,
        format: None,
        split: args.split,
    };
    let skips = SkipLog::new(OnError::Fail);
    let samples = read_split(&split, &skips, true)?;
    let mut loaded = load(&args.model, device)?;
    if let Some(prompt) = &args.prompt {
        loaded.model = loaded.model.with_prompt(prompt);
    }
    let evaluation = loaded.recipe.evaluation.as_ref();
    let settings = EvalSettings {
        processor: loaded.processor,
        batch_size: evaluation.map_or(BATCH_SIZE, |evaluation| evaluation.batch_size),
        num_workers: loaded.recipe.data.num_workers,
        device: device.clone(),
        skips,
        stop: StopSignal::install()?,
    };
    let progress = bar("loss");
    let show = |done: usize, total: usize| {
        progress.set_length(total as u64);
        progress.set_position(done as u64);
    };
    let (loss, tokens) = loss(&loaded.model, &samples, &settings, &show)?;
    let scores = if args.loss_only {
        None
    } else {
        progress.set_message("captions");
        let generation = evaluation
            .map(|evaluation| evaluation.test_generation.clone())
            .unwrap_or_default();
        let captions = caption(&loaded.model, &samples, &generation, &settings, &show)?;
        Some(score(&captions, &samples, METRICS)?)
    };
    progress.finish_and_clear();
    let output = Output {
        loss,
        tokens,
        scores,
    };
    if args.json {
        return result_line(&json(&output)?);
    }
    result_line(&format!("loss {loss:.4} over {tokens} tokens"))?;
    match &output.scores {
        Some(scores) => result_line(&format!("{} (×100)", score_line(scores))),
        None => Ok(()),
    }
}
