//! Computes a cache, or finds the one that an earlier run left.

use std::path::PathBuf;
use std::sync::Arc;

use blip2::Compute;
use blip2_data::DataError;
use blip2_data::images::{ImageInput, ImageSource, Look, PixelSource};
use blip2_data::loader::{BatchSource, LoaderOptions, PrefetchLoader};
use blip2_vision::VisionConfig;
use burn::data::dataloader::DataLoader;
use burn::tensor::{Device, Tensor};

use super::file::{self, FeatureWriter, Layout, Origin};
use super::store::{FeatureStore, Rows};
use super::{CacheKind, FeaturesConfig};
use crate::RunError;
use crate::evaluate::EvalSettings;
use crate::hash::sha256;

/// The image encoder of a model.
pub struct Encoder<'a> {
    /// Its dimensions.
    pub config: &'a VisionConfig,
    /// The precision in which it multiplies.
    pub compute: Compute,
    /// A hash of its weights; none if they are trained.
    pub sha256: Option<&'a str>,
    /// What it makes of images.
    pub embed: &'a dyn Fn(ImageInput) -> Tensor<3>,
}

/// What a cache is made of.
pub struct Cached<'a> {
    /// The split's name, which begins the file's.
    pub split: &'a str,
    /// The image encoder.
    pub encoder: &'a Encoder<'a>,
    /// The images, as the encoder sees them.
    pub images: PixelSource,
    /// How many there are.
    pub count: usize,
    /// Views of each.
    pub views: usize,
    /// What decides the pixels besides the image files: preprocessing, augmentation, seed.
    pub transforms: String,
    /// A hash of the images.
    pub images_sha256: &'a str,
    /// Where files lie if the config names no folder.
    pub own_folder: PathBuf,
    /// Batch size, threads, the plain device.
    pub settings: &'a EvalSettings,
}

/// The embeddings of all images of `cached`.
///
/// # Errors
///
/// An unreadable image (unless skipped), a full disk, a file of other weights or images under the
/// right name, or a request to stop.
pub fn cache(config: &FeaturesConfig, cached: &Cached<'_>) -> Result<FeatureStore, RunError> {
    let Encoder {
        config: architecture,
        compute: products,
        sha256: weights,
        ..
    } = cached.encoder;
    let weights = weights.unwrap_or_default();
    let layout = Layout {
        images: cached.count,
        views: cached.views,
        tokens: architecture.num_tokens(),
        width: architecture.hidden_size,
        dtype: config.dtype,
    };
    let origin = Origin {
        vision_backbone: sha256(format!("{architecture:?} {products:?} {weights}").as_bytes()),
        transforms: sha256(format!("{} {}", cached.transforms, cached.views).as_bytes()),
        images: cached.images_sha256.to_string(),
    };
    if config.cache != CacheKind::Disk {
        let mut rows = Vec::with_capacity(layout.images * layout.views * layout.row_len());
        let kept = compute(cached, &layout, |bytes| {
            rows.extend_from_slice(bytes);
            Ok(())
        })?;
        return Ok(FeatureStore::new(layout, Rows::Memory(rows), kept));
    }
    let folder = config.folder.as_ref().unwrap_or(&cached.own_folder);
    std::fs::create_dir_all(folder).map_err(RunError::io(folder))?;
    let path = folder.join(origin.file_name(cached.split, config.dtype));
    if path.exists() {
        tracing::info!("features of {}: {}", cached.split, path.display());
    } else {
        let mut writer = FeatureWriter::create(&path, &layout, &origin)?;
        let kept = compute(cached, &layout, |bytes| writer.write(bytes))?;
        let kept: Vec<u8> = kept.into_iter().map(u8::from).collect();
        writer.finish(&kept)?;
    }
    let (file, start, kept) = file::open(&path, &layout, &origin)?;
    Ok(FeatureStore::new(
        layout,
        Rows::File { path, file, start },
        kept,
    ))
}

/// Every view of every image, in order.
struct AllLooks {
    images: PixelSource,
    looks: Vec<Look>,
}

impl BatchSource for AllLooks {
    /// The images, and the items they are.
    type Batch = (ImageInput, Vec<usize>);

    fn num_items(&self) -> usize {
        self.looks.len()
    }

    fn batch(
        &self,
        _epoch: usize,
        items: &[usize],
        device: &Device,
    ) -> Result<Self::Batch, DataError> {
        let looks: Vec<Look> = items.iter().map(|&item| self.looks[item]).collect();
        let (images, kept) = self.images.read(&looks, device)?;
        Ok((images, kept.into_iter().map(|row| items[row]).collect()))
    }
}

/// Gives `write` the rows of the cache in order, and returns which images were read.
fn compute(
    cached: &Cached<'_>,
    layout: &Layout,
    mut write: impl FnMut(&[u8]) -> Result<(), RunError>,
) -> Result<Vec<bool>, RunError> {
    let looks: Vec<Look> = (0..layout.images)
        .flat_map(|sample| {
            (0..layout.views).map(move |view| Look {
                sample,
                view,
                index: sample,
            })
        })
        .collect();
    let total = looks.len();
    let source = AllLooks {
        images: cached.images.clone(),
        looks,
    };
    let options = LoaderOptions {
        batch_size: cached.settings.batch_size,
        num_workers: cached.settings.num_workers,
        shuffle: None,
        drop_last: false,
    };
    let loader = PrefetchLoader::new(Arc::new(source), options, &cached.settings.device);
    let bar = crate::cli::bar(&format!("features of {}", cached.split));
    bar.set_length(total as u64);
    let row_len = layout.row_len();
    let absent = vec![0; row_len];
    let mut kept = vec![false; layout.images];
    let mut done = 0;
    for batch in loader.iter() {
        cached.settings.stop.check(None)?;
        let (images, items) = batch.map_err(|error| RunError::Training(error.to_string()))?;
        let embeds = (cached.encoder.embed)(images).into_data();
        let embeds = embeds.convert_dtype(layout.dtype.dtype());
        for (row, item) in embeds.as_bytes().chunks_exact(row_len).zip(items) {
            while done < item {
                write(&absent)?;
                done += 1;
            }
            write(row)?;
            kept[item / layout.views] = true;
            done += 1;
        }
        bar.set_position(done as u64);
    }
    while done < total {
        write(&absent)?;
        done += 1;
    }
    bar.finish_and_clear();
    Ok(kept)
}
