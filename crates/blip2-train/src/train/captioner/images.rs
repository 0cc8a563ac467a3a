//! The splits of a captioner's run, and where their images come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use blip2::Blip2Caption;
use blip2_data::images::{ImageSource, PixelSource, Preparation};
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::ImageProcessor;

use crate::RunError;
use crate::cli::json;
use crate::data::{
    Stream, captions_sha256, clean_captions, images_sha256, read_split, read_stream,
};
use crate::evaluate::EvalSettings;
use crate::features::{CacheKind, Cached, cache};
use crate::recipe::Recipe;
use crate::run::RunFolder;

/// What a captioner learns from.
pub(super) enum Train {
    /// Images with the captions that are learned.
    Split {
        samples: Arc<Vec<Sample>>,
        images_sha256: String,
    },
    Stream(Stream),
}

impl Train {
    fn read(recipe: &Recipe, skips: &SkipLog) -> Result<Self, RunError> {
        if let Some(stream) = &recipe.data.stream {
            return Ok(Self::Stream(read_stream(recipe, stream, skips)?));
        }
        let samples = read_split(recipe.data.train_split()?, skips, true)?;
        let cleaning = recipe.data.caption_cleaning.as_ref();
        let samples = clean_captions(samples, cleaning, skips)?.learned;
        Ok(Self::Split {
            images_sha256: images_sha256(&samples),
            samples,
        })
    }

    fn sha256(&self) -> BTreeMap<String, String> {
        match self {
            Self::Split {
                samples,
                images_sha256,
            } => [
                ("train images".to_string(), images_sha256.clone()),
                ("train captions".to_string(), captions_sha256(samples)),
            ]
            .into(),
            Self::Stream(stream) => stream.sha256.clone(),
        }
    }
}

/// The images and captions of a run.
pub(super) struct Splits {
    pub train: Train,
    /// With the captions that are scored.
    pub val: Arc<Vec<Sample>>,
    /// The same images with captions as they are learned, for the loss.
    pub val_learned: Arc<Vec<Sample>>,
    /// By name.
    pub tests: Vec<(String, Arc<Vec<Sample>>)>,
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
        let train = Train::read(recipe, skips)?;
        let val = read_split(&recipe.data.val, skips, true)?;
        let val = clean_captions(val, cleaning, skips)?;
        Ok(Self {
            val_images_sha256: images_sha256(&val.scored),
            train,
            val: val.scored,
            val_learned: val.learned,
            tests,
        })
    }

    /// SHA-256 of what a run learns from and is chosen by, for its [`Identity`](crate::run::Identity).
    pub fn sha256(&self) -> BTreeMap<String, String> {
        let mut hashes = self.train.sha256();
        hashes.insert("val images".into(), self.val_images_sha256.clone());
        hashes.insert("val captions".into(), captions_sha256(&self.val));
        hashes
    }

    /// Items of an epoch.
    pub fn epoch_items(&self, recipe: &Recipe) -> usize {
        match (&self.train, &recipe.data.stream) {
            (Train::Split { samples, .. }, _) => recipe.data.captions.items(samples).len(),
            (Train::Stream(_), stream) => stream.as_ref().map_or(0, |stream| stream.epoch_samples),
        }
    }

    /// The images whose captions a constant caption is chosen from. A stream is never listed: those
    /// of the validation split stand in for it.
    pub fn common(&self) -> &[Sample] {
        match &self.train {
            Train::Split { samples, .. } => samples,
            Train::Stream(_) => &self.val_learned,
        }
    }
}

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
        model: &Blip2Caption,
        settings: &EvalSettings,
        vision_sha256: Option<&String>,
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
        // Only frozen towers have a hash.
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
pub(super) struct Pixels {
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
