//! Where the images of a run come from.

use std::sync::Arc;

use blip2_data::images::{ImageSource, PixelSource, Preparation};
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::ImageProcessor;

use super::splits::{Splits, Train};
use crate::RunError;
use crate::cli::json;
use crate::evaluate::EvalSettings;
use crate::features::{CacheKind, Cached, Encoder, cache};
use crate::recipe::Recipe;
use crate::run::RunFolder;

/// Where the images of an epoch come from: files, or the features that a frozen image encoder made
/// of them once.
pub(super) struct Images {
    /// Of a train split; a stream brings its own.
    pub train: Option<Arc<dyn ImageSource>>,
    pub val: Arc<dyn ImageSource>,
}

impl Images {
    /// Finds the images that `recipe` asks for; computes features if they are to be cached.
    pub fn new(
        recipe: &Recipe,
        folder: &RunFolder,
        splits: &Splits,
        pixels: &Pixels,
        encoder: &Encoder<'_>,
        settings: &EvalSettings,
    ) -> Result<Self, RunError> {
        let augmentation = recipe.data.augmentation.as_ref();
        let val = pixels.of(&splits.val);
        let Train::Split {
            samples,
            images_sha256,
        } = &splits.train
        else {
            return Ok(Self {
                train: None,
                val: Arc::new(val),
            });
        };
        let mut train = pixels.of(samples);
        if let Some(augmentation) = augmentation {
            train = train.with_augmentation(augmentation.init()?, recipe.seed);
        }
        let Some(features) = recipe
            .features
            .as_ref()
            .filter(|features| features.cache != CacheKind::None)
        else {
            return Ok(Self {
                train: Some(Arc::new(train)),
                val: Arc::new(val),
            });
        };
        if encoder.sha256.is_none() {
            return Err(RunError::Usage(
                "field `features.cache`: only a frozen image encoder gives the same features in \
                 every epoch; set `vision_backbone.frozen` or `features.cache = \"none\"`"
                    .into(),
            ));
        }
        let processor = recipe.processor();
        let cached = |split, images, count, images_sha256, views, transforms| {
            let cached = Cached {
                split,
                encoder,
                images,
                count,
                views,
                transforms,
                images_sha256,
                own_folder: folder.features(),
                settings,
            };
            cache(features, &cached).map_err(|error| error.resumable(folder))
        };
        // The seed counts where views are drawn.
        let train_transforms = match augmentation {
            Some(augmentation) => json(&(processor, augmentation, recipe.seed))?,
            None => json(&processor)?,
        };
        let train = cached(
            "train",
            train,
            samples.len(),
            images_sha256,
            features.views,
            train_transforms,
        )?;
        let val = cached(
            "val",
            val,
            splits.val.len(),
            &splits.val_images_sha256,
            1,
            json(&processor)?,
        )?;
        Ok(Self {
            train: Some(Arc::new(train)),
            val: Arc::new(val),
        })
    }
}

/// Reads image files as the model wants them.
pub(in crate::train) struct Pixels {
    pub processor: ImageProcessor,
    pub skips: SkipLog,
}

impl Pixels {
    /// The whole images of `samples`.
    pub fn of(&self, samples: &Arc<Vec<Sample>>) -> PixelSource {
        PixelSource::new(samples.clone(), self.processor.clone(), self.skips.clone())
    }

    /// How a stream's images are prepared.
    pub fn preparation(&self, recipe: &Recipe) -> Result<Preparation, RunError> {
        let preparation = Preparation::new(self.processor.clone());
        Ok(match &recipe.data.augmentation {
            Some(augmentation) => preparation.with_augmentation(augmentation.init()?, recipe.seed),
            None => preparation,
        })
    }
}

/// Refuses images of another size than the encoder takes.
pub(in crate::train) fn check_image_size(
    field: &str,
    processor: &ImageProcessor,
    expected: usize,
) -> Result<(), RunError> {
    let (height, width) = processor.size();
    if (height, width) == (expected, expected) {
        return Ok(());
    }
    Err(blip2::Blip2Error::Config {
        field: format!("{field}.data_preprocessor.size"),
        reason: format!("is {height}×{width}, but the image encoder takes {expected}×{expected}"),
    }
    .into())
}
