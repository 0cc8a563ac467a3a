//! The splits of a captioner's run, and where their images come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use blip2::Blip2Caption;
use blip2_data::images::{ImageSource, PixelSource};
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::ImageProcessor;

use crate::RunError;
use crate::cli::json;
use crate::data::{captions_sha256, clean_captions, images_sha256, read_split};
use crate::evaluate::EvalSettings;
use crate::features::{CacheKind, Cached, cache};
use crate::recipe::Recipe;
use crate::run::RunFolder;

/// The images and captions of a run.
pub(super) struct Splits {
    /// With the captions that are learned.
    pub train: Arc<Vec<Sample>>,
    /// With the captions that are scored.
    pub val: Arc<Vec<Sample>>,
    /// The same images with captions as they are learned, for the loss.
    pub val_learned: Arc<Vec<Sample>>,
    /// By name.
    pub tests: Vec<(String, Arc<Vec<Sample>>)>,
    train_images_sha256: String,
    val_images_sha256: String,
}

impl Splits {
    pub fn read(recipe: &Recipe, skips: &SkipLog) -> Result<Self, RunError> {
        let tests = recipe
            .data
            .test
            .iter()
            .map(|split| {
                let name = split.name.clone().unwrap_or_default();
                Ok((name, read_split(split, skips, true)?))
            })
            .collect::<Result<_, RunError>>()?;
        let cleaning = recipe.data.caption_cleaning.as_ref();
        let train = read_split(&recipe.data.train, skips, true)?;
        let val = read_split(&recipe.data.val, skips, true)?;
        let train = clean_captions(train, cleaning, skips)?.learned;
        let val = clean_captions(val, cleaning, skips)?;
        Ok(Self {
            train_images_sha256: images_sha256(&train),
            val_images_sha256: images_sha256(&val.scored),
            train,
            val: val.scored,
            val_learned: val.learned,
            tests,
        })
    }

    /// SHA-256 of what a run learns from and is chosen by, for its [`Identity`](crate::run::Identity).
    pub fn sha256(&self) -> BTreeMap<String, String> {
        let hashes = [
            ("train images", self.train_images_sha256.clone()),
            ("train captions", captions_sha256(&self.train)),
            ("val images", self.val_images_sha256.clone()),
            ("val captions", captions_sha256(&self.val)),
        ];
        hashes.map(|(name, hash)| (name.to_string(), hash)).into()
    }
}

/// Where the images of an epoch come from: files, or the features that a frozen image encoder made
/// of them once.
pub(super) struct Images {
    pub train: Arc<dyn ImageSource>,
    pub val: Arc<dyn ImageSource>,
}

impl Images {
    /// Finds the images that `recipe` asks for; computes features if they are to be cached.
    pub fn new(
        recipe: &Recipe,
        folder: &RunFolder,
        splits: &Splits,
        pixels: &Pixels,
        model: &Blip2Caption,
        settings: &EvalSettings,
        vision_sha256: Option<&String>,
    ) -> Result<Self, RunError> {
        let augmentation = recipe.data.augmentation.as_ref();
        let (mut train, val) = (pixels.of(&splits.train), pixels.of(&splits.val));
        if let Some(augmentation) = augmentation {
            train = train.with_augmentation(augmentation.init()?, recipe.seed);
        }
        let Some(features) = recipe
            .features
            .as_ref()
            .filter(|features| features.cache != CacheKind::None)
        else {
            return Ok(Self {
                train: Arc::new(train),
                val: Arc::new(val),
            });
        };
        // None is given of an encoder that learns.
        let Some(vision_sha256) = vision_sha256 else {
            return Err(RunError::Usage(
                "field `features.cache`: only a frozen image encoder gives the same features in \
                 every epoch; set `model.vision_backbone.frozen` or `features.cache = \"none\"`"
                    .into(),
            ));
        };
        let processor = recipe.model.as_ref().map(|model| &model.data_preprocessor);
        let cached = |split, images, count, images_sha256, views, transforms| {
            let cached = Cached {
                split,
                model,
                vision_sha256,
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
            splits.train.len(),
            &splits.train_images_sha256,
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
            train: Arc::new(train),
            val: Arc::new(val),
        })
    }
}

/// Reads image files as the model wants them.
pub(super) struct Pixels {
    pub processor: ImageProcessor,
    pub skips: SkipLog,
}

impl Pixels {
    /// The whole images of `samples`.
    pub fn of(&self, samples: &Arc<Vec<Sample>>) -> PixelSource {
        PixelSource::new(samples.clone(), self.processor.clone(), self.skips.clone())
    }
}
