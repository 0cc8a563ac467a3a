//! How long the machine at hand takes to read images: the loader's threads share its cores with the step.

use std::sync::Arc;
use std::time::Instant;

use blip2_data::images::{ImageSource, Look, PixelSource};
use blip2_data::skips::{OnError, SkipLog};
use burn::tensor::Device;

use super::workload::samples;
use crate::recipe::Recipe;

/// Images that are read for it.
const IMAGES: usize = 16;

/// Seconds to read, augment and resize an image of the train split on all cores; none if there is none.
pub fn seconds_an_image(recipe: &Recipe, device: &Device) -> Option<f64> {
    let mut samples = samples(recipe.data.train.as_ref()?, recipe)?;
    samples.retain(|sample| sample.path.is_file());
    samples.truncate(IMAGES);
    let count = samples.len();
    let processor = recipe.processor()?.init().ok()?;
    let skips = SkipLog::new(OnError::Fail);
    let mut source = PixelSource::new(Arc::new(samples), processor, skips);
    if let Some(augmentation) = &recipe.data.augmentation {
        source = source.with_augmentation(augmentation.init().ok()?, recipe.seed);
    }
    let looks: Vec<Look> = (0..count)
        .map(|sample| Look {
            sample,
            view: 0,
            index: sample,
        })
        .collect();
    let tries = (0..2).map(|_| {
        let started = Instant::now();
        source.read(&looks, device).ok()?;
        Some(started.elapsed().as_secs_f64())
    });
    let seconds = tries.collect::<Option<Vec<f64>>>()?;
    let fastest = seconds.into_iter().fold(f64::INFINITY, f64::min);
    (count > 0).then(|| fastest / count as f64)
}
