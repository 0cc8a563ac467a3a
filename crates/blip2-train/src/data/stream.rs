//! From `[data.stream]` to a stream's sources and loader.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use blip2_data::images::Preparation;
use blip2_data::loader::{LoaderOptions, PrefetchLoader};
use blip2_data::skips::SkipLog;
use blip2_data::stream::{Source, StreamOptions, StreamSource};
use burn::tensor::Device;
use sha2::{Digest, Sha256};

use super::{CaptionBatches, captions_sha256, clean_captions, images_sha256, read_split};
use crate::RunError;
use crate::hash::hex;
use crate::recipe::{Recipe, StreamConfig};

/// The sources of a stream.
#[derive(Debug, Clone)]
pub struct Stream {
    /// In the order of the recipe.
    pub sources: Vec<Source>,
    /// SHA-256 of what they are made of, by name: `train shards` (names and sizes), `train images` and
    /// `train captions` (of annotation files).
    pub sha256: BTreeMap<String, String>,
    config: StreamConfig,
}

/// Finds the shards of a stream, and reads its annotation files; what is skipped goes to `skips`.
///
/// # Errors
///
/// A shard that is not there, a broken annotation file, or the first bad entry of one, unless the
/// recipe skips them.
pub fn read_stream(
    recipe: &Recipe,
    config: &StreamConfig,
    skips: &SkipLog,
) -> Result<Stream, RunError> {
    let cleaning = recipe.data.caption_cleaning.as_ref();
    let (mut shards, mut images, mut captions) = (Sha256::new(), String::new(), String::new());
    let mut sources = Vec::with_capacity(config.sources.len());
    for source in &config.sources {
        let (name, weight) = (&source.name, source.weight);
        if let Some(split) = source.as_split() {
            let samples = read_split(&split, skips, true)?;
            let samples = clean_captions(samples, cleaning, skips)?.learned;
            images += &images_sha256(&samples);
            captions += &captions_sha256(&samples);
            sources.push(Source::samples(name, weight, samples));
        } else {
            let patterns = source
                .shards
                .as_ref()
                .map_or(&[][..], |shards| shards.all());
            let field = source.caption_field.clone();
            let source = Source::shards(name, weight, patterns, field, skips)?;
            for shard in source.list() {
                shards.update(format!("{name:?} {:?} {}\n", shard.name(), shard.size));
            }
            sources.push(source);
        }
    }
    let hashes = [
        ("train shards", hex(&shards.finalize())),
        ("train images", hex(&Sha256::digest(images))),
        ("train captions", hex(&Sha256::digest(captions))),
    ];
    Ok(Stream {
        sources,
        sha256: hashes.map(|(name, hash)| (name.to_string(), hash)).into(),
        config: config.clone(),
    })
}

impl Stream {
    /// The loader that a captioner learns from. How many samples its shards hold is kept in the file
    /// `counts`.
    ///
    /// # Errors
    ///
    /// Impossible weights, and a shard that is not what it was when it was counted.
    pub fn loader(
        &self,
        recipe: &Recipe,
        preparation: Preparation,
        skips: &SkipLog,
        counts: &Path,
        device: &Device,
    ) -> Result<PrefetchLoader<CaptionBatches>, RunError> {
        let options = StreamOptions {
            epoch_samples: self.config.epoch_samples,
            shuffle_window: self.config.shuffle_window,
            seed: recipe.seed,
            captions: recipe.data.captions,
            cleaning: recipe.data.caption_cleaning.clone(),
        };
        let sources = self.sources.clone();
        let source = StreamSource::new(sources, options, preparation, skips.clone(), Some(counts))?;
        let options = LoaderOptions {
            batch_size: recipe.train.batch_size,
            num_workers: recipe.data.num_workers,
            // It is in its order.
            shuffle: None,
            drop_last: recipe.train.drop_last,
        };
        let source: CaptionBatches = Box::new(source);
        Ok(PrefetchLoader::new(Arc::new(source), options, device))
    }
}
