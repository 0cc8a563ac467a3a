//! The run of a captioner.

mod scores;

use blip2_data::skips::SkipLog;
use burn::module::Module;

pub use scores::{ConstantCaption, FinalScores};

use self::scores::{Finish, ValWatch};
use super::feed::Feed;
use super::images::{Pixels, check_image_size};
use super::splits::Splits;
use super::{Start, check_batch_size, fit_judged};
use crate::RunError;
use crate::devices::Devices;
use crate::evaluate::EvalSettings;
use crate::features::Encoder;
use crate::hash::tower_hashes;
use crate::report;
use crate::run::StopSignal;
use crate::tasks::CaptionTask;

pub(super) fn run(start: Start, devices: &Devices, stop: &StopSignal) -> Result<(), RunError> {
    let device = devices.main();
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
    let model = crate::model::start(model_config, &autodiff)?;
    let image_size = model.vision_backbone.get().image_size();
    check_image_size("model", &processor, image_size)?;
    let hashes = tower_hashes(&model);
    for line in model.lora_summary() {
        eprintln!("{line}");
        tracing::info!("{line}");
    }
    let rows = report::parameter_rows(model.architecture(), &report::Frozen::of(&model));
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
        // None of an encoder that learns, if only its adapters.
        sha256: hashes
            .get("vision_backbone")
            .filter(|_| model.vision_backbone.is_frozen())
            .map(String::as_str),
        embed: &|images| model.image_embeds(images),
    };
    let feed = Feed::new(&start, &splits, &pixels, &encoder, &hashes, &settings)?;
    let watch = ValWatch::new(
        &start.folder,
        &splits,
        feed.val_images.clone(),
        evaluation,
        &settings,
    );
    let task = CaptionTask { model };
    let (task, step) = fit_judged(&start, task, feed, Box::new(watch), devices, stop)?;
    Finish {
        recipe,
        folder: &start.folder,
        splits: &splits,
        pixels: &pixels,
        evaluation,
        settings: &settings,
    }
    .score(&task.model.valid(), step, hashes)
}
