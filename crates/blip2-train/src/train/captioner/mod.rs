//! The run of a captioner.

mod images;
mod scores;

use blip2_data::batch::CaptionChoice;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::ImageProcessor;
use burn::module::Module;
use burn::tensor::Device;

pub use scores::{ConstantCaption, FinalScores};

use self::images::{Images, Pixels, Splits};
use self::scores::{Finish, ValWatch};
use super::{Start, Training, check_batch_size, fit};
use crate::RunError;
use crate::data::{eval_loader, train_loader};
use crate::evaluate::EvalSettings;
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
    check_batch_size(recipe, recipe.data.captions.items(&splits.train).len())?;
    let processor = model_config.data_preprocessor.init()?;
    let autodiff = device.clone().autodiff();
    let mut model = crate::model::start(model_config, &autodiff)?;
    check_image_size(&model, &processor)?;
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
    let mut made_of = hashes.clone();
    made_of.extend(splits.sha256());
    // Before features are computed for nothing.
    let state = start.state(made_of)?;
    let pixels = Pixels { processor, skips };
    let images = Images::new(
        recipe,
        &start.folder,
        &splits,
        &pixels,
        &model,
        &settings,
        hashes
            .get("vision_backbone")
            .filter(|_| model.vision_backbone.is_frozen()),
    )?;
    let train = train_loader(recipe, splits.train.clone(), images.train, device);
    let valid = eval_loader(
        splits.val_learned.clone(),
        images.val.clone(),
        CaptionChoice::First,
        evaluation.batch_size,
        recipe.data.num_workers,
        device,
    );
    let watch = ValWatch::new(&start.folder, &splits, images.val, evaluation, &settings);
    let training = Training {
        task: CaptionTask {
            model: model.clone(),
        },
        train,
        valid,
        watch: Some(Box::new(watch)),
        state,
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
