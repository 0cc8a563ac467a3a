//! The run of stage 1.

mod scores;

use std::path::Path;

use blip2::checkpoint::load_stage1_parts;
use blip2::stage1::Blip2Qformer;
use blip2_data::skips::SkipLog;
use burn::module::Module;
use burn::tensor::Device;

pub use scores::Stage1Scores;

use self::scores::{Finish, RetrievalWatch};
use super::feed::Feed;
use super::images::{Pixels, check_image_size};
use super::splits::Splits;
use super::{Start, check_batch_size, fit_judged};
use crate::RunError;
use crate::devices::Devices;
use crate::evaluate::EvalSettings;
use crate::features::Encoder;
use crate::hash::vision_hash;
use crate::report;
use crate::run::{StopSignal, checkpoint};
use crate::tasks::Stage1Task;

pub(super) fn run(start: Start, devices: &Devices, stop: &StopSignal) -> Result<(), RunError> {
    let device = devices.main();
    let recipe = &start.recipe;
    let (Some(model_config), Some(retrieval)) = (&recipe.stage1, &recipe.retrieval) else {
        return Err(RunError::Usage(
            "the recipe has no stage1 or retrieval".into(),
        ));
    };
    let skips = SkipLog::new(recipe.data.on_error);
    let splits = Splits::read(recipe, &skips)?;
    check_batch_size(recipe, splits.epoch_items(recipe))?;
    let processor = model_config.data_preprocessor.init()?;
    let autodiff = device.clone().autodiff();
    let mut model = model_config.init(&autodiff)?;
    let image_size = model.vision_backbone.get().image_size();
    check_image_size("stage1", &processor, image_size)?;
    let hashes = vision_hash(&model.vision_backbone);
    if let Some(init) = recipe.init_cfg() {
        model = initialised(model, &init.checkpoint, &autodiff)?;
    }
    eprintln!("{}", report::parameter_table(&report::stage1_rows(&model)));

    let settings = EvalSettings {
        batch_size: retrieval.batch_size,
        num_workers: recipe.data.num_workers,
        device: device.clone(),
        stop: stop.clone(),
    };
    let pixels = Pixels { processor, skips };
    let encoder = Encoder {
        config: &model.architecture().vision,
        compute: model.compute(),
        sha256: hashes.get("vision_backbone").map(String::as_str),
        embed: &|images| model.image_embeds(images),
    };
    let feed = Feed::new(&start, &splits, &pixels, &encoder, &hashes, &settings)?;
    let watch = RetrievalWatch::new(&splits, feed.val_images.clone(), retrieval, &settings);
    let task = Stage1Task { model };
    let (task, step) = fit_judged(&start, task, feed, Box::new(watch), devices, stop)?;
    Finish {
        recipe,
        folder: &start.folder,
        splits: &splits,
        pixels: &pixels,
        retrieval,
        settings: &settings,
    }
    .score(&task.model.valid(), step, hashes)
}

/// `model` with everything that is trained from the checkpoint of stage 1 at `path`.
fn initialised(
    model: Blip2Qformer,
    path: &Path,
    device: &Device,
) -> Result<Blip2Qformer, RunError> {
    if checkpoint::is_one(path) {
        let task = Stage1Task { model };
        return Ok(checkpoint::find(path)?.load_into(task)?.model);
    }
    Ok(load_stage1_parts(model, path, device)?)
}
