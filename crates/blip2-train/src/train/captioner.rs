//! The run of a captioner.

use std::collections::BTreeMap;
use std::sync::Arc;

use blip2::checkpoint::load_trained_parts;
use blip2_data::CaptionSample;
use blip2_data::batch::CaptionChoice;
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::ImageProcessor;
use blip2_eval::Metric;
use burn::module::Module;
use burn::tensor::Device;
use serde::Serialize;

use super::{Start, fit};
use crate::RunError;
use crate::data::{eval_loader, read_split, train_loader};
use crate::evaluate::{
    EvalSettings, METRICS, SplitScores, best_constant, caption, empty_rate, score, write_results,
};
use crate::hash::tower_hashes;
use crate::recipe::{EvaluationConfig, Recipe};
use crate::report;
use crate::run::{StopSignal, checkpoint, write_json};
use crate::tasks::CaptionTask;

/// How many of the most frequent train captions are tried as the constant caption.
const CONSTANT_CANDIDATES: usize = 50;

/// `scores.json`.
#[derive(Debug, Serialize)]
pub struct FinalScores {
    /// The optimizer steps of the checkpoint that was scored.
    pub checkpoint_step: usize,
    /// Each test split.
    pub splits: BTreeMap<String, SplitScores>,
    /// What each split scores if every image gets the same caption.
    pub constant_caption: BTreeMap<String, ConstantCaption>,
    /// SHA-256 of each frozen tower, equal before and after.
    pub frozen_towers: BTreeMap<String, String>,
}

/// The best constant caption of a split.
#[derive(Debug, Serialize)]
pub struct ConstantCaption {
    /// The caption.
    pub caption: String,
    /// Its score.
    #[serde(rename = "CIDEr")]
    pub cider: f64,
}

struct Splits {
    train: Arc<Vec<Sample>>,
    val: Arc<Vec<Sample>>,
    tests: Vec<(String, Arc<Vec<Sample>>)>,
}

pub(super) fn run(start: Start, device: &Device, stop: &StopSignal) -> Result<(), RunError> {
    let recipe = &start.recipe;
    let (Some(model_config), Some(evaluation)) = (&recipe.model, &recipe.evaluation) else {
        return Err(RunError::Usage(
            "the recipe has no model or evaluation".into(),
        ));
    };
    let skips = SkipLog::new(recipe.data.on_error);
    let splits = read_splits(recipe, &skips)?;
    let processor = model_config.data_preprocessor.init()?;
    let autodiff = device.clone().autodiff();
    let mut model = model_config.init(&autodiff)?;
    check_image_size(&model, &processor)?;
    let hashes = tower_hashes(&model);
    if let Some(init) = recipe.init_cfg() {
        let path = &init.checkpoint;
        model = if checkpoint::is_one(path) {
            checkpoint::find(path)?
                .load_into(CaptionTask { model })?
                .model
        } else {
            load_trained_parts(model, path, &autodiff)?
        };
    }
    let rows = report::parameter_rows(model.architecture(), report::Frozen::of(&model));
    eprintln!("{}", report::parameter_table(&rows));

    let settings = EvalSettings {
        processor: processor.clone(),
        batch_size: evaluation.batch_size,
        num_workers: recipe.data.num_workers,
        device: device.clone(),
        skips: skips.clone(),
        stop: stop.clone(),
    };
    let train = train_loader(
        recipe,
        splits.train.clone(),
        processor.clone(),
        &skips,
        device,
    );
    let valid = eval_loader(
        splits.val.clone(),
        processor,
        CaptionChoice::First,
        evaluation.batch_size,
        recipe.data.num_workers,
        &skips,
        device,
    );
    let hook = validation_hook(&start, &splits, evaluation, &settings);
    fit(
        &start,
        CaptionTask {
            model: model.clone(),
        },
        train,
        valid,
        Some(hook),
        &autodiff,
        stop,
    )?;

    let mut checkpoint_step = 0;
    if recipe.train.epochs > 0 {
        let best = checkpoint::best(&start.folder)?;
        checkpoint_step = best.state.step;
        model = best.load_into(CaptionTask { model })?.model;
    }
    finish(
        &start,
        &model.valid(),
        &splits,
        evaluation,
        &settings,
        checkpoint_step,
        hashes,
    )
}

fn read_splits(recipe: &Recipe, skips: &SkipLog) -> Result<Splits, RunError> {
    let tests = recipe
        .data
        .test
        .iter()
        .map(|split| {
            let name = split.name.clone().unwrap_or_default();
            Ok((name, read_split(split, skips, true)?))
        })
        .collect::<Result<_, RunError>>()?;
    Ok(Splits {
        train: read_split(&recipe.data.train, skips, true)?,
        val: read_split(&recipe.data.val, skips, true)?,
        tests,
    })
}

fn check_image_size(
    model: &blip2::Blip2Caption,
    processor: &ImageProcessor,
) -> Result<(), RunError> {
    let expected = model.vision_backbone.get().image_size();
    let (height, width) = processor.size();
    if (height, width) == (expected, expected) {
        return Ok(());
    }
    Err(blip2::Blip2Error::Config {
        field: "model.data_preprocessor.size".into(),
        reason: format!("is {height}×{width}, but the image encoder takes {expected}×{expected}"),
    }
    .into())
}

/// Captions validation images after each epoch and returns CIDEr.
fn validation_hook(
    start: &Start,
    splits: &Splits,
    evaluation: &EvaluationConfig,
    settings: &EvalSettings,
) -> crate::run::ScoreHook<CaptionTask> {
    let limit = match evaluation.val_captions {
        0 => splits.val.len(),
        limit => limit.min(splits.val.len()),
    };
    let samples = Arc::new(splits.val[..limit].to_vec());
    let (folder, settings) = (start.folder.clone(), settings.clone());
    let generation = evaluation.val_generation.clone();
    Box::new(move |task, epoch| {
        let captions = caption(&task.model, &samples, &generation, &settings, &|_, _| {})?;
        write_results(&folder.captions(&format!("epoch-{epoch}")), &captions)?;
        let scores = score(&captions, &samples, &[Metric::Cider])?;
        Ok(scores.get("CIDEr").unwrap_or(0.0))
    })
}

/// Scores the tests, proves that the frozen towers are what they were, writes the report.
fn finish(
    start: &Start,
    model: &blip2::Blip2Caption,
    splits: &Splits,
    evaluation: &EvaluationConfig,
    settings: &EvalSettings,
    checkpoint_step: usize,
    hashes: BTreeMap<String, String>,
) -> Result<(), RunError> {
    let mut scores = FinalScores {
        checkpoint_step,
        splits: BTreeMap::new(),
        constant_caption: BTreeMap::new(),
        frozen_towers: hashes,
    };
    let mut shown: Vec<(String, Arc<Vec<Sample>>, Vec<CaptionSample>)> = Vec::new();
    for (name, samples) in &splits.tests {
        let started = std::time::Instant::now();
        let bar = crate::cli::bar(&format!("captions of {name}"));
        let captions = caption(
            model,
            samples,
            &evaluation.test_generation,
            settings,
            &|done, total| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            },
        )
        .map_err(|error| match error {
            RunError::Interrupted { .. } => RunError::Interrupted {
                resume: Some(start.folder.path().to_path_buf()),
            },
            error => error,
        })?;
        bar.finish_and_clear();
        write_results(&start.folder.captions(name), &captions)?;
        let seconds = started.elapsed().as_secs_f64();
        let split = SplitScores {
            images: captions.len(),
            scores: score(&captions, samples, METRICS)?,
            empty_rate: empty_rate(&captions),
            captions_per_s: captions.len() as f64 / seconds,
        };
        eprintln!("{name}: {}", report::score_line(&split.scores));
        scores.splits.insert(name.clone(), split);
        let (caption, cider) = best_constant(&splits.train, samples, CONSTANT_CANDIDATES)?;
        let constant = ConstantCaption { caption, cider };
        scores.constant_caption.insert(name.clone(), constant);
        shown.push((name.clone(), samples.clone(), captions));
    }
    let after = tower_hashes(model);
    for (tower, before) in &scores.frozen_towers {
        if after.get(tower) != Some(before) {
            return Err(RunError::Training(format!("the frozen {tower} changed")));
        }
        eprintln!("frozen {tower} is bit-identical before and after: sha256 {before}");
    }
    write_json(&start.folder.scores(), &scores)?;
    let skipped = settings.skips.list();
    report::write(
        &start.folder,
        &start.recipe,
        model,
        &scores,
        &shown,
        &skipped,
    )?;
    if !skipped.is_empty() {
        eprintln!(
            "{} items were skipped; the report lists them",
            skipped.len()
        );
    }
    eprintln!("report: {}", start.folder.report().display());
    println!("{}", start.folder.path().display());
    Ok(())
}
