//! `--model`: from a run folder to a captioner.

use std::path::Path;

use blip2::Blip2Caption;
use blip2_data::transforms::ImageProcessor;
use burn::module::Module;
use burn::tensor::Device;

use crate::RunError;
use crate::recipe::Recipe;
use crate::recipe_file;
use crate::run::{RunFolder, checkpoint};
use crate::tasks::CaptionTask;

/// A captioner ready to caption, with its recipe.
pub(super) struct LoadedModel {
    pub model: Blip2Caption,
    pub processor: ImageProcessor,
    pub recipe: Recipe,
}

/// Loads the best checkpoint of the run in `path` on the plain device.
pub(super) fn load(path: &Path, device: &Device) -> Result<LoadedModel, RunError> {
    if path.join("config.json").is_file() && !path.join("config.toml").exists() {
        return Err(RunError::Usage(format!(
            "{} is a Hugging Face folder; importing those is not built yet, name a run folder",
            path.display()
        )));
    }
    let folder = RunFolder::open(path)?;
    let recipe = recipe_file::read(&folder.config(), &[])?;
    let Some(config) = &recipe.model else {
        return Err(RunError::Usage(format!(
            "{} trained a tower, not a captioner",
            path.display()
        )));
    };
    // Frozen towers without a file are drawn as the run drew them.
    device.seed(recipe.seed);
    let task = CaptionTask {
        model: config.init(device)?,
    };
    let model = checkpoint::best(&folder)?.load_into(task)?.model.valid();
    let processor = config.data_preprocessor.init()?;
    Ok(LoadedModel {
        model,
        processor,
        recipe,
    })
}
