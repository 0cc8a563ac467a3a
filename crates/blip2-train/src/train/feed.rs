//! From the splits of a run to its loaders.

use std::collections::BTreeMap;
use std::sync::Arc;

use blip2_data::batch::{CaptionChoice, CaptionSource};
use blip2_data::images::ImageSource;
use blip2_data::loader::PrefetchLoader;

use super::Start;
use super::images::{Images, Pixels};
use super::splits::{Splits, Train};
use crate::RunError;
use crate::data::{CaptionBatches, eval_loader, train_loader};
use crate::evaluate::EvalSettings;
use crate::features::Encoder;
use crate::run::checkpoint::State;

/// What a run is fed with.
pub(in crate::train) struct Feed {
    /// Where the run begins.
    pub state: State,
    pub train: PrefetchLoader<CaptionBatches>,
    pub valid: PrefetchLoader<CaptionSource>,
    /// The images of the validation split.
    pub val_images: Arc<dyn ImageSource>,
}

impl Feed {
    /// Compares what the run is made of with what it was made of, computes features if they are to be
    /// cached, and opens the loaders. `hashes` are those of the frozen towers.
    pub fn new(
        start: &Start,
        splits: &Splits,
        pixels: &Pixels,
        encoder: &Encoder<'_>,
        hashes: &BTreeMap<String, String>,
        settings: &EvalSettings,
    ) -> Result<Self, RunError> {
        let (recipe, device) = (&start.recipe, &settings.device);
        // Before the run's identity is compared: this says which shard has changed.
        let stream = match &splits.train {
            Train::Stream(stream) => Some(stream.loader(
                recipe,
                pixels.preparation(recipe)?,
                &pixels.skips,
                &start.folder.shards(),
                device,
            )?),
            Train::Split { .. } => None,
        };
        let mut made_of = hashes.clone();
        made_of.extend(splits.sha256());
        // Before features are computed for nothing.
        let state = start.state(made_of)?;
        let images = Images::new(recipe, &start.folder, splits, pixels, encoder, settings)?;
        let train = match (&splits.train, images.train, stream) {
            (Train::Split { samples, .. }, Some(images), _) => {
                train_loader(recipe, samples.clone(), images, device)
            }
            (_, _, Some(stream)) => stream,
            _ => return Err(RunError::Usage("the recipe has no train data".into())),
        };
        let valid = eval_loader(
            splits.val_learned.clone(),
            images.val.clone(),
            CaptionChoice::First,
            settings.batch_size,
            settings.num_workers,
            device,
        );
        Ok(Self {
            state,
            train,
            valid,
            val_images: images.val,
        })
    }
}
