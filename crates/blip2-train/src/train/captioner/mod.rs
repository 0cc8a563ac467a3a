//! The run of a captioner.

mod scores;

use std::path::Path;

use blip2::Blip2Caption;
use blip2::checkpoint::{Weights, load_trained_parts};
use blip2_data::skips::SkipLog;
use burn::module::Module;
use burn::tensor::Device;

pub use scores::{ConstantCaption, FinalScores};

use self::scores::{Finish, ValWatch};
use super::feed::Feed;
use super::images::{Pixels, check_image_size};
use super::splits::Splits;
use super::{Start, Training, check_batch_size, fit};
use crate::RunError;
use crate::evaluate::EvalSettings;
use crate::features::Encoder;
use crate::hash::tower_hashes;
use crate::report;
use crate::run::{StopSignal, checkpoint};
use crate::tasks::CaptionTask;

pub(super) fn run(start: Start, device: &Device, stop: &StopSignal) -> Result<(), RunError> {
    let recipe = &start.recipe;
    let (Some(model_config), Some(evaluation)) = (&recipe.model, &recipe.evaluation) else {
        return Err(RunError::Usage(
            "the recipe has no model or evaluation".into(),
        ));
    };
    let skips = SkipLog::new(recipe.data.on_error);
    let splits = Splits::read(recipe, &skips)?;
    check_batch_size(recipe, splits.epoch_items(recipe))?;
    let processor = model_config.data_preprocessor.init()?;
    let autodiff = device.clone().autodiff();
    let mut model = model_config.init(&autodiff)?;
    let image_size = model.vision_backbone.get().image_size();
    check_image_size("model", &processor, image_size)?;
    let hashes = tower_hashes(&model);
    if let Some(init) = recipe.init_cfg() {
        let path = &init.checkpoint;
        model = initialised(model, path, &autodiff)?;
    }
    let rows = report::parameter_rows(model.architecture(), report::Frozen::of(&model));
    eprintln!("{}", report::parameter_table(&rows));

    let settings = EvalSettings {
        batch_size: evaluation.batch_size,
        num_workers: recipe.data.num_workers,
        device: device.clone(),
        stop: stop.clone(),
    };
    let pixels = Pixels { processor, skips };
    let encoder = Encoder {
        config: &model.architecture().vision,
        compute: model.compute().vision_backbone,
        sha256: hashes.get("vision_backbone").map(String::as_str),
        embed: &|images| model.image_embeds(images),
    };
    let feed = Feed::new(&start, &splits, &pixels, &encoder, &hashes, &settings)?;
    let watch = ValWatch::new(
        &start.folder,
        &splits,
        feed.val_images,
        evaluation,
        &settings,
    );
    let training = Training {
        task: CaptionTask {
            model: model.clone(),
        },
        train: feed.train,
        valid: feed.valid,
        watch: Some(Box::new(watch)),
        state: feed.state,
    };
    fit(&start, training, &autodiff, stop)?;

    let mut checkpoint_step = 0;
    if recipe.train.epochs > 0 {
        let best = checkpoint::best(&start.folder)?;
        checkpoint_step = best.state.step;
        model = best.load_into(CaptionTask { model })?.model;
    }
    Finish {
        recipe,
        folder: &start.folder,
        splits: &splits,
        pixels: &pixels,
        evaluation,
        settings: &settings,
    }
    .score(&model.valid(), checkpoint_step, hashes)
}

/// `model` with the trained parts of the checkpoint at `path`: of a captioner, or of stage 1, which
/// has no neck.
fn initialised(
    model: Blip2Caption,
    path: &Path,
    device: &Device,
) -> Result<Blip2Caption, RunError> {
    let weights = match checkpoint::is_one(path) {
        true => {
            let found = checkpoint::find(path)?;
            match found.is_stage1()? {
                true => found.weights()?,
                false => return Ok(found.load_into(CaptionTask { model })?.model),
            }
        }
        false => Weights::open(path)?,
    };
    let (model, stage_one) = load_trained_parts(model, &weights, device)?;
    if stage_one {
        eprintln!(
            "{} is of stage 1: Q-Former, queries and LayerNorm start from it, the neck is new",
            path.display()
        );
    }
    Ok(model)
}
