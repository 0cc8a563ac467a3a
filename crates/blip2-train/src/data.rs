//! From the data tables of a recipe to samples and loaders.

mod stream;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use blip2_data::annotations::{LoadOptions, Loaded, OnError, load};
use blip2_data::batch::{CaptionBatch, CaptionChoice, CaptionSource, Views};
use blip2_data::cleaning::CaptionCleaning;
use blip2_data::emoji_scenes::{self, EmojiScenesConfig};
use blip2_data::images::ImageSource;
use blip2_data::loader::{BatchSource, LoaderOptions, PrefetchLoader};
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::{DecodeLimits, probe};
use blip2_eval::Captions;
use burn::tensor::Device;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

pub use stream::{Stream, read_stream};

use crate::RunError;
use crate::hash::hex;
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
    folder: &Path,
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
    let Loaded {
        mut samples,
        skipped,
    } = load(&split.annotations, &split.images, &options)?;
    samples.truncate(split.limit.unwrap_or(usize::MAX));
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
            Err(error) if skips.on_error() == OnError::Skip => {
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

/// The same images in the same order, twice.
#[derive(Debug)]
pub struct CleanSplit {
    /// With the captions that are learned.
    pub learned: Arc<Vec<Sample>>,
    /// With the captions that are scored.
    pub scored: Arc<Vec<Sample>>,
}

/// Cleans the captions of `samples`; images of whose captions nothing is left are left out.
///
/// # Errors
///
/// The first image without a caption that can be learned, unless `skips` leaves it out.
pub fn clean_captions(
    samples: Arc<Vec<Sample>>,
    cleaning: Option<&CaptionCleaning>,
    skips: &SkipLog,
) -> Result<CleanSplit, RunError> {
    let Some(cleaning) = cleaning else {
        return Ok(CleanSplit {
            learned: samples.clone(),
            scored: samples,
        });
    };
    let (mut learned, mut scored) = (Vec::new(), Vec::new());
    for sample in samples.iter() {
        let captions: Vec<String> = sample
            .captions
            .iter()
            .map(|caption| cleaning.clean(caption))
            .filter(|caption| !caption.trim().is_empty())
            .collect();
        if !captions.is_empty() {
            learned.push(Sample {
                captions,
                ..sample.clone()
            });
            scored.push(sample.clone());
            continue;
        }
        let reason = "`data.caption_cleaning` leaves nothing of its captions";
        if skips.on_error() == OnError::Fail {
            let image = &sample.image_id;
            return Err(RunError::Usage(format!("image {image}: {reason}")));
        }
        skips.add(&sample.path.display().to_string(), &reason);
    }
    if learned.is_empty() {
        return Err(RunError::Usage(
            "`data.caption_cleaning` leaves no caption of a whole split".into(),
        ));
    }
    Ok(CleanSplit {
        learned: Arc::new(learned),
        scored: Arc::new(scored),
    })
}

/// Bytes that are read at each of three places of an image file to tell it from another one.
const PIECE: u64 = 4096;

/// SHA-256 over the images of `samples` in order: ids, names, file sizes and pieces of each
/// file, for all of COCO would take minutes; in hex.
pub fn images_sha256(samples: &[Sample]) -> String {
    let pieces: Vec<String> = samples
        .par_iter()
        // A file that can't be read is reported where its pixels are needed.
        .map(|sample| pieces_sha256(&sample.path).unwrap_or_default())
        .collect();
    let mut hasher = Sha256::new();
    for (sample, pieces) in samples.iter().zip(pieces) {
        hasher.update(format!(
            "{:?} {:?} {pieces}\n",
            sample.image_id, sample.file_name
        ));
    }
    hex(&hasher.finalize())
}

/// SHA-256 over the size of a file and its start, middle and end; in hex.
fn pieces_sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut hasher = Sha256::new();
    hasher.update(size.to_le_bytes());
    let mut piece = Vec::new();
    for start in [0, size / 2, size.saturating_sub(PIECE)] {
        file.seek(SeekFrom::Start(start))?;
        piece.clear();
        file.by_ref().take(PIECE).read_to_end(&mut piece)?;
        hasher.update(&piece);
    }
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 over the captions of `samples`, in order; in hex.
pub fn captions_sha256(samples: &[Sample]) -> String {
    let mut hasher = Sha256::new();
    for sample in samples {
        hasher.update(format!("{:?}\n", sample.captions));
    }
    hex(&hasher.finalize())
}

/// Batches to learn from, of a split or of a stream.
pub type CaptionBatches = Box<dyn BatchSource<Batch = CaptionBatch>>;

/// The loader that a captioner learns from.
pub fn train_loader(
    recipe: &Recipe,
    samples: Arc<Vec<Sample>>,
    images: Arc<dyn ImageSource>,
    device: &Device,
) -> PrefetchLoader<CaptionBatches> {
    let views = match &recipe.features {
        Some(features) => Views::Fixed(features.views),
        None => Views::Fresh,
    };
    let source = CaptionSource::new(samples, images, recipe.data.captions, views, recipe.seed);
    let options = LoaderOptions {
        batch_size: recipe.train.batch_size,
        num_workers: recipe.data.num_workers,
        shuffle: Some(recipe.seed),
        drop_last: recipe.train.drop_last,
    };
    let source: CaptionBatches = Box::new(source);
    PrefetchLoader::new(Arc::new(source), options, device)
}

/// A loader in the order of the split, for evaluation.
pub fn eval_loader(
    samples: Arc<Vec<Sample>>,
    images: Arc<dyn ImageSource>,
    choice: CaptionChoice,
    batch_size: usize,
    num_workers: usize,
    device: &Device,
) -> PrefetchLoader<CaptionSource> {
    // One view: evaluation sees the whole image.
    let source = CaptionSource::new(samples, images, choice, Views::Fixed(1), 0);
    let options = LoaderOptions {
        batch_size,
        num_workers,
        shuffle: None,
        drop_last: false,
    };
    PrefetchLoader::new(Arc::new(source), options, device)
}
