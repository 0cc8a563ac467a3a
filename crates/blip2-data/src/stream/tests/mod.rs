//! A stream as a whole: its order, a resume, bad input, foreign shards.

mod bad_input;
mod formats;
mod order;
mod resume;

use std::fs;
use std::path::{Path, PathBuf};

use burn::data::dataloader::DataLoader;

use super::testing::{png, write_shard};
use super::*;
use crate::loader::{LoaderOptions, Position, PrefetchLoader};
use crate::transforms::{ImageProcessorConfig, Resample};

fn preparation() -> Preparation {
    let config = ImageProcessorConfig {
        size: [2, 2],
        resample: Resample::Bilinear,
        image_mean: [0.0; 3],
        image_std: [1.0; 3],
    };
    Preparation::new(config.init().unwrap())
}

/// A folder of shards `x-0.tar`, …, whose samples are numbered through, and a folder of images.
struct Data {
    folder: tempfile::TempDir,
    shards: Vec<PathBuf>,
}

impl Data {
    fn new(sizes: &[usize]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut next = 0;
        let shards = sizes.iter().enumerate().map(|(index, &size)| {
            let path = folder.path().join(format!("x-{index}.tar"));
            next += size;
            write_shard(&path, next - size..next)
        });
        let shards = shards.collect();
        Self { folder, shards }
    }

    fn source(&self, name: &str, weight: f64, on_error: OnError) -> Result<Source, DataError> {
        Source::shards(name, weight, &self.shards, None, &SkipLog::new(on_error))
    }

    fn counts(&self) -> PathBuf {
        self.folder.path().join("shards.jsonl")
    }

    /// An annotated folder of `count` images, numbered from 100,000 on.
    fn samples(&self, count: usize) -> Arc<Vec<Sample>> {
        let sample = |number: usize| {
            let path = self.folder.path().join(format!("{number}.png"));
            fs::write(&path, png(number)).unwrap();
            Sample {
                image_id: format!("{number}"),
                file_name: format!("{number}.png"),
                path,
                captions: vec![format!("{}", 100_000 + number)],
            }
        };
        Arc::new((0..count).map(sample).collect())
    }
}

struct Setting<'a> {
    epoch: usize,
    window: usize,
    counts: Option<&'a Path>,
    skips: SkipLog,
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self {
            epoch: 10,
            window: 4,
            counts: None,
            skips: SkipLog::new(OnError::Fail),
        }
    }
}

impl Setting<'_> {
    fn stream(&self, sources: Vec<Source>) -> Result<StreamSource, DataError> {
        let options = StreamOptions {
            epoch_samples: self.epoch,
            shuffle_window: self.window,
            seed: 5,
            captions: CaptionChoice::All,
            cleaning: None,
        };
        StreamSource::new(
            sources,
            options,
            preparation(),
            self.skips.clone(),
            self.counts,
        )
    }

    fn loader(&self, sources: Vec<Source>, num_workers: usize) -> PrefetchLoader<StreamSource> {
        let options = LoaderOptions {
            batch_size: 3,
            num_workers,
            shuffle: None,
            drop_last: false,
        };
        let source = self.stream(sources).unwrap();
        PrefetchLoader::new(Arc::new(source), options, &Device::default())
    }
}

/// The numbers that captions are, batch by batch; the pixels must be those of the number.
fn numbers(batch: CaptionBatch) -> Vec<usize> {
    let ImageInput::Pixels(images) = batch.images else {
        panic!("pixels");
    };
    let values = images.into_data().try_to_vec::<f32>().unwrap();
    let colours = values.chunks(12).map(|image| {
        let byte = |value: f32| (value * 255.0).round() as usize;
        byte(image[0]) + 256 * byte(image[4])
    });
    let captions: Vec<usize> = batch
        .samples
        .iter()
        .map(|sample| sample.text.as_ref().unwrap().parse().unwrap())
        .collect();
    let of_captions = captions.iter().map(|number| number % 100_000);
    assert!(colours.eq(of_captions), "an image with another's caption");
    captions
}

fn epochs(loader: &PrefetchLoader<StreamSource>, count: usize) -> Vec<Vec<usize>> {
    (0..count)
        .flat_map(|_| {
            loader
                .iter()
                .map(|batch| numbers(batch.unwrap()))
                .collect::<Vec<_>>()
        })
        .collect()
}
