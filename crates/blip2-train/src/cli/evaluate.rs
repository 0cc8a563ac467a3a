//! `blip2 evaluate`.

use std::path::PathBuf;
use std::sync::Arc;

use blip2_data::annotations::OnError;
use blip2_data::images::{ImageSource, PixelSource};
use blip2_data::skips::SkipLog;
use blip2_eval::Scores;
use burn::tensor::Device;
use serde::Serialize;

use super::model::{TowerDType, TowerProducts, load};
use super::{bar, json, metrics, result_line, retrieval, stage1};
use crate::RunError;
use crate::data::{read_split, references};
use crate::evaluate::{EvalSettings, candidates, caption, loss};
use crate::plan::preflight;
use crate::recipe::SplitConfig;
use crate::report::score_line;
use crate::run::StopSignal;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What is evaluated: captions, or retrieval with a model of stage 1.
    #[arg(long, value_enum, default_value_t = Task::Caption)]
    task: Task,
    /// With `--task retrieval`: candidates of each query that matching puts in order; 0 for none.
    /// Default: as the run's recipe says, or 128.
    #[arg(long, value_name = "K")]
    rerank: Option<usize>,
    #[command(flatten)]
    gaps: stage1::Gaps,
    /// A run folder, a folder in the Hugging Face layout, or a model of the hub (owner/name).
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// A folder with LoRA adapters for it, in PEFT's layout.
    #[arg(long, value_name = "DIR")]
    lora: Option<PathBuf>,
    /// COCO captions JSON, Karpathy JSON, a list as LAVIS has it, or JSONL.
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
    /// Images at once; default: as the run's recipe says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: Option<u16>,
    #[command(flatten)]
    metrics: metrics::Args,
    #[command(flatten)]
    generation: super::generation::Args,
    /// In what precision the frozen towers of an imported model are kept.
    #[arg(long, value_enum, default_value_t = TowerDType::Stored)]
    dtype: TowerDType,
    /// In what precision the model multiplies; bf16 is faster on processors with AVX-512 BF16,
    /// int8 on those with AVX-512 VNNI.
    #[arg(long, value_enum)]
    compute: Option<TowerProducts>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// What a model can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Task {
    /// Loss and COCO scores of captions.
    Caption,
    /// Recall@1, 5 and 10 of images for texts and texts for images.
    Retrieval,
}

#[derive(Serialize)]
struct Output {
    loss: f64,
    tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    scores: Option<Scores>,
}

pub(super) fn run(args: Args, device: &Device, ignore_memory: bool) -> Result<(), RunError> {
    let split = SplitConfig {
        name: None,
        annotations: args.annotations,
        images: args.images,
        format: None,
        limit: None,
        split: args.split,
    };
    let skips = SkipLog::new(OnError::Fail);
    let samples = read_split(&split, &skips, true)?;
    if args.task == Task::Retrieval {
        let options = retrieval::Options {
            model: &args.model,
            gaps: &args.gaps,
            dtype: args.dtype,
            rerank: args.rerank,
            batch_size: args.batch_size,
            json: args.json,
        };
        return retrieval::run(&options, &samples, skips, device);
    }
    let gaps = &args.gaps;
    if args.rerank.is_some() || !gaps.base.is_empty() || gaps.tokenizer.is_some() {
        return Err(RunError::Usage(
            "--rerank, --base and --tokenizer belong to --task retrieval".into(),
        ));
    }
    // What scores need is looked for before the long work.
    let scorer = if args.loss_only {
        None
    } else {
        Some(args.metrics.scorer(&references(&samples))?)
    };
    let mut loaded = load(
        &args.model,
        args.lora.as_deref(),
        args.dtype,
        args.compute,
        device,
    )?;
    let generation = args.generation.apply(&loaded.generation, 1)?;
    if let Some(prompt) = &args.prompt {
        loaded.model = loaded.model.with_prompt(prompt);
    }
    let images: Arc<dyn ImageSource> =
        Arc::new(PixelSource::new(samples.clone(), loaded.processor, skips));
    let settings = EvalSettings {
        batch_size: args.batch_size.map_or(loaded.batch_size, usize::from),
        num_workers: loaded.num_workers,
        device: device.clone(),
        stop: StopSignal::install()?,
    };
    preflight::captioning(
        &loaded.model,
        &generation,
        args.prompt.as_deref().unwrap_or_default(),
        settings.batch_size.min(samples.len()),
        device,
        ignore_memory,
    )?;
    let progress = bar("loss");
    let show = |done: usize, total: usize| {
        progress.set_length(total as u64);
        progress.set_position(done as u64);
    };
    let (loss, tokens) = loss(&loaded.model, &samples, &images, &settings, &show)?;
    let scores = if let Some((scorer, metrics)) = scorer {
        progress.set_message("captions");
        let captions = caption(
            &loaded.model,
            &samples,
            &images,
            &generation,
            &settings,
            &show,
        )?;
        Some(scorer.score(&candidates(&captions), &metrics)?.scores)
    } else {
        None
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
