//! The images and captions of a run: what it learns from, is chosen by and scored on.

use std::collections::BTreeMap;
use std::sync::Arc;

use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;

use crate::RunError;
use crate::data::{
    Stream, captions_sha256, clean_captions, images_sha256, read_split, read_stream,
};
use crate::recipe::Recipe;

/// What a run learns from.
pub(in crate::train) enum Train {
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
pub(in crate::train) struct Splits {
    pub train: Train,
    /// With the captions that are scored.
    pub val: Arc<Vec<Sample>>,
    /// The same images with captions as they are learned, for the loss.
    pub val_learned: Arc<Vec<Sample>>,
    /// By name.
    pub tests: Vec<(String, Arc<Vec<Sample>>)>,
    pub val_images_sha256: String,
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
