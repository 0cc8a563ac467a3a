//! From the data tables of a recipe to samples and loaders.

use std::sync::Arc;

use blip2_data::annotations::{LoadOptions, Loaded, load};
use blip2_data::batch::{CaptionChoice, CaptionSource};
use blip2_data::emoji_scenes::{self, EmojiScenesConfig};
use blip2_data::loader::{LoaderOptions, PrefetchLoader};
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::{DecodeLimits, ImageProcessor, probe};
use blip2_eval::Captions;
use burn::tensor::Device;
use rayon::prelude::*;

use crate::RunError;
use crate::recipe::{DataConfig, Recipe, SplitConfig};

/// Makes the built-in data set if the recipe names a folder for it and it is not there whole.
///
/// # Errors
///
/// If it can't be written.
pub fn prepare(config: &DataConfig) -> Result<(), RunError> {
    let Some(folder) = &config.emoji_scenes else {
        return Ok(());
    };
    let scenes = EmojiScenesConfig::default();
    if !emoji_scenes::is_complete(folder, &scenes) {
        make_emoji_scenes(folder, &scenes)?;
    }
    Ok(())
}

/// Writes the built-in data set with a progress bar on stderr.
///
/// # Errors
///
/// If it can't be written.
pub fn make_emoji_scenes(
    folder: &std::path::Path,
    config: &EmojiScenesConfig,
) -> Result<emoji_scenes::Summary, RunError> {
    eprintln!("making the data set emoji-scenes in {}", folder.display());
    let started = std::time::Instant::now();
    let bar = crate::cli::bar("images");
    let summary = emoji_scenes::write(folder, config, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    eprintln!(
        "made {} images in {:.1} s",
        summary.images,
        started.elapsed().as_secs_f64()
    );
    Ok(summary)
}

/// Reads one split; what is skipped goes to `skips`.
///
/// # Errors
///
/// A broken annotation file, or the first bad entry or image header unless the recipe skips them.
pub fn read_split(
    split: &SplitConfig,
    skips: &SkipLog,
    require_captions: bool,
) -> Result<Arc<Vec<Sample>>, RunError> {
    let options = LoadOptions {
        format: split.format,
        split: split.split.clone(),
        on_error: skips.on_error(),
        require_captions,
    };
    let Loaded { samples, skipped } = load(&split.annotations, &split.images, &options)?;
    for entry in skipped {
        skips.add(&entry.what, &entry.reason);
    }
    // Headers are cheap: a bad file is better named now than hours into a run.
    let limits = DecodeLimits::default();
    let headers: Vec<_> = samples
        .par_iter()
        .map(|sample| probe(&sample.path, &limits))
        .collect();
    let mut kept = Vec::with_capacity(samples.len());
    for (sample, header) in samples.into_iter().zip(headers) {
        match header {
            Ok(_) => kept.push(sample),
            Err(error) if skips.on_error() == blip2_data::annotations::OnError::Skip => {
                skips.add(&sample.path.display().to_string(), &error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if kept.is_empty() {
        return Err(RunError::Usage(format!(
            "{}: no usable image is left",
            split.annotations.display()
        )));
    }
    Ok(Arc::new(kept))
}

/// The references of a split, by image id.
pub fn references(samples: &[Sample]) -> Captions {
    samples
        .iter()
        .map(|sample| (sample.image_id.clone(), sample.captions.clone()))
        .collect()
}

/// The loader that a captioner learns from.
pub fn train_loader(
    recipe: &Recipe,
    samples: Arc<Vec<Sample>>,
    processor: ImageProcessor,
    skips: &SkipLog,
    device: &Device,
) -> PrefetchLoader<CaptionSource> {
    let choice = recipe.data.captions;
    let source = CaptionSource::new(samples, processor, choice, recipe.seed, skips.clone());
    let options = LoaderOptions {
        batch_size: recipe.train.batch_size,
        num_workers: recipe.data.num_workers,
        shuffle: Some(recipe.seed),
        drop_last: false,
    };
    PrefetchLoader::new(Arc::new(source), options, device)
}

/// A loader in the order of the split, for evaluation.
pub fn eval_loader(
    samples: Arc<Vec<Sample>>,
    processor: ImageProcessor,
    choice: CaptionChoice,
    batch_size: usize,
    num_workers: usize,
    skips: &SkipLog,
    device: &Device,
) -> PrefetchLoader<CaptionSource> {
    let source = CaptionSource::new(samples, processor, choice, 0, skips.clone());
    let options = LoaderOptions {
        batch_size,
        num_workers,
        shuffle: None,
        drop_last: false,
    };
    PrefetchLoader::new(Arc::new(source), options, device)
}
