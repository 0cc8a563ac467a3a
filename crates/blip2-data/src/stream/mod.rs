//! Training data as a stream: tar shards in the layout of WebDataset, and annotated image folders
//! beside them, in a weighted mixture.
//!
//! Nothing is listed but the shards themselves. A position of the stream (its epochs follow each other
//! without a gap) tells by arithmetic its window, and from that the positions in each source
//! (`mixture`); a source tells by the counts of its shards which one that is (`shards`), and a scan of that
//! shard's headers where the sample stands (`shard`, `tar`). So the order depends on the seed alone, any
//! worker can read any position, and a run goes on anywhere with one number a shard in hand
//! (`counts`). What is in memory is a window of places and the images of a few batches.

mod counts;
mod files;
mod mixture;
mod order;
mod pattern;
mod read;
mod rng;
mod shard;
mod shards;
mod source;
mod split;
mod tar;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use image::RgbImage;

pub(crate) use files::OpenFiles;
pub use files::Shard;
pub(crate) use pattern::expand;
pub(crate) use read::MAX_IMAGE;
pub(crate) use shard::climbs_out;
pub use source::Source;
pub(crate) use tar::{TarScan, read_at};

use self::counts::CountFile;
use self::mixture::Mixture;
use self::order::{Cursor, Item, Order};
use self::shards::{ShardCursor, Shards};
use self::source::SourceData;
use self::split::SplitCursor;
use crate::DataError;
use crate::batch::{CaptionBatch, CaptionChoice, CaptionSample, draw_caption};
use crate::cleaning::CaptionCleaning;
use crate::images::{ImageInput, Look, Preparation, stack};
use crate::loader::BatchSource;
use crate::sample::Sample;
use crate::skips::{OnError, SkipLog};
use crate::transforms::{decode, decode_bytes};

/// Batches that are tried in the place of one of which nothing can be read.
const SUBSTITUTES: usize = 8;

/// How a stream runs.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Positions that make an epoch.
    pub epoch_samples: usize,
    /// Positions that are put in order together.
    pub shuffle_window: usize,
    /// Seeds the order and the choice of captions.
    pub seed: u64,
    /// Which captions of an image are shown. A shard's sample is one item: of a list of captions in
    /// its JSON, `first` shows the first one and both others draw one.
    pub captions: CaptionChoice,
    /// How the captions of shards are cleaned.
    pub cleaning: Option<CaptionCleaning>,
}

/// Batches of a stream; see the module's documentation.
pub struct StreamSource {
    sources: Vec<Source>,
    options: StreamOptions,
    preparation: Preparation,
    skips: SkipLog,
    files: Arc<OpenFiles>,
    order: Order,
}

impl StreamSource {
    /// A stream of `sources`, whose images are prepared as `preparation` says. The counts of shards
    /// are kept in the file `counts`, if there is one; with it a stream goes on in the middle without
    /// scanning what lies before.
    ///
    /// # Errors
    ///
    /// Impossible options, and a shard that has changed since it was counted.
    pub fn new(
        sources: Vec<Source>,
        options: StreamOptions,
        preparation: Preparation,
        skips: SkipLog,
        counts: Option<&Path>,
    ) -> Result<Self, DataError> {
        let config = |field: &str, reason: &str| DataError::Config {
            field: format!("data.stream.{field}"),
            reason: reason.into(),
        };
        if sources.is_empty() {
            return Err(config("sources", "is empty"));
        }
        if options.epoch_samples == 0 {
            return Err(config("epoch_samples", "must be at least 1"));
        }
        let weights = sources.iter().map(|source| (&*source.name, source.weight));
        let mixture = Mixture::new(weights)?;
        let files = Arc::new(OpenFiles::default());
        let mut cursors = Vec::with_capacity(sources.len());
        for (number, source) in sources.iter().enumerate() {
            cursors.push(match &source.data {
                SourceData::Shards {
                    list,
                    caption_field,
                } => Cursor::Shards(Box::new(ShardCursor::new(Shards {
                    name: source.name.clone(),
                    source: number,
                    seed: options.seed,
                    list: list.clone(),
                    json_only: caption_field.is_some(),
                    files: files.clone(),
                    skips: skips.clone(),
                    count_file: CountFile::new(counts),
                })?)),
                SourceData::Samples(samples) => {
                    let split = SplitCursor::new(samples, options.captions, number, options.seed);
                    if split.is_empty() {
                        return Err(config(&format!("sources.{}", source.name), "has no sample"));
                    }
                    Cursor::Split(split)
                }
            });
        }
        let window = options.shuffle_window as u64;
        Ok(Self {
            order: Order::new(mixture, cursors, window, options.seed)?,
            sources,
            options,
            preparation,
            skips,
            files,
        })
    }

    /// Items of `epoch` as a batch. Their positions lie `later` positions further on than their own.
    fn read(
        &self,
        epoch: usize,
        items: &[usize],
        later: u64,
        device: &Device,
    ) -> Result<CaptionBatch, DataError> {
        // Epochs count from 1.
        let start = (epoch as u64 - 1) * self.options.epoch_samples as u64 + later;
        let found = self
            .order
            .at(items.iter().map(|&item| start + item as u64))?;
        let looks = items.iter().map(|&item| Look {
            sample: item,
            view: epoch,
            index: item,
        });
        let rows: Vec<(Item, Look)> = found.into_iter().zip(looks).collect();
        let read = |row: usize| self.row(&rows[row].0, &rows[row].1);
        let name = |row: usize| self.name(&rows[row].0);
        let size = self.preparation.size();
        let (images, samples) = stack(rows.len(), read, name, size, &self.skips, device)?;
        Ok(CaptionBatch {
            images: ImageInput::Pixels(images),
            samples,
        })
    }

    /// The values of an image, and its caption.
    fn row(&self, item: &Item, look: &Look) -> Result<(Vec<f32>, CaptionSample), DataError> {
        let limits = &self.preparation.limits;
        let (image, image_id, caption): (RgbImage, String, String) = match item {
            Item::Shard { source, place } => {
                // Captions are the cheaper ones to find broken.
                let caption = self.shard_caption(*source, place, look)?;
                let bytes = place.image(&self.files)?;
                let image = decode_bytes(&place.name(), &bytes, limits)?;
                (image, place.sample.key.to_string(), caption)
            }
            Item::Sample {
                source,
                sample,
                caption,
            } => {
                let sample = self.sample(*source, *sample);
                let caption = match caption {
                    Some(caption) => *caption as usize,
                    None => self.draw(look, sample.captions.len()),
                };
                let caption = sample.captions[caption].clone();
                (
                    decode(&sample.path, limits)?,
                    sample.image_id.clone(),
                    caption,
                )
            }
        };
        let sample = CaptionSample {
            image_id,
            text: Some(caption),
            ..CaptionSample::default()
        };
        Ok((self.preparation.pixels(&image, look), sample))
    }

    fn shard_caption(
        &self,
        source: u32,
        place: &shards::Place,
        look: &Look,
    ) -> Result<String, DataError> {
        let field = match &self.sources[source as usize].data {
            SourceData::Shards { caption_field, .. } => caption_field.as_deref(),
            SourceData::Samples(_) => None,
        };
        let mut captions = place.captions(&self.files, field)?;
        let caption = match self.options.captions {
            CaptionChoice::First => 0,
            CaptionChoice::All | CaptionChoice::Random => self.draw(look, captions.len()),
        };
        let caption = captions.swap_remove(caption);
        let Some(cleaning) = &self.options.cleaning else {
            return Ok(caption);
        };
        let cleaned = cleaning.clean(&caption);
        match cleaned.trim().is_empty() {
            true => Err(place.error("`data.caption_cleaning` leaves nothing of its caption")),
            false => Ok(cleaned),
        }
    }

    fn draw(&self, look: &Look, captions: usize) -> usize {
        draw_caption(self.options.seed, look.view, look.index, captions)
    }

    fn sample(&self, source: u32, sample: u32) -> &Sample {
        match &self.sources[source as usize].data {
            SourceData::Samples(samples) => &samples[sample as usize],
            SourceData::Shards { .. } => unreachable!("a source's items are of its kind"),
        }
    }

    /// What an item is called in messages.
    fn name(&self, item: &Item) -> String {
        match item {
            Item::Shard { place, .. } => place.name().display().to_string(),
            Item::Sample { source, sample, .. } => {
                self.sample(*source, *sample).path.display().to_string()
            }
        }
    }
}

impl BatchSource for StreamSource {
    type Batch = CaptionBatch;

    fn num_items(&self) -> usize {
        self.options.epoch_samples
    }

    /// A batch of which nothing can be read is skipped like a sample: the first one after it that can
    /// be read stands in for it.
    fn batch(
        &self,
        epoch: usize,
        items: &[usize],
        device: &Device,
    ) -> Result<CaptionBatch, DataError> {
        let mut result = self.read(epoch, items, 0, device);
        for substitute in 1..=SUBSTITUTES {
            match &result {
                Err(error) if error.is_damage() && self.skips.on_error() == OnError::Skip => {
                    let later = substitute * items.len();
                    result = self.read(epoch, items, later as u64, device);
                }
                _ => break,
            }
        }
        result
    }
}

impl std::fmt::Debug for StreamSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamSource")
            .field("sources", &self.sources)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
