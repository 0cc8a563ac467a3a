//! Shards against a folder of the same images: images a second in alternating rounds, and the peak
//! of memory.
//!
//!     cargo build --release --workspace --examples
//!     target/release/examples/stream_bench make DIR COUNT SIDE     # COUNT images of SIDE pixels, twice
//!     target/release/examples/stream_bench speed DIR ROUNDS WORKERS SIDE    # resized to SIDE pixels
//!     target/release/examples/stream_bench memory DIR shards|folder
//!
//! `memory` reads everything once and prints the peak of its own process, so that two sizes of data
//! are two runs. Its batches are small, so that what is kept of the data shows beside them.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use blip2_data::CaptionBatch;
use blip2_data::annotations::{LoadOptions, load};
use blip2_data::batch::{CaptionChoice, CaptionSource, Views};
use blip2_data::images::{PixelSource, Preparation};
use blip2_data::loader::{BatchSource, LoaderOptions, PrefetchLoader};
use blip2_data::skips::{OnError, SkipLog};
use blip2_data::stream::{Source, StreamOptions, StreamSource};
use blip2_data::transforms::{ImageProcessor, ImageProcessorConfig, Resample};
use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use rayon::prelude::*;
use tar::{Builder, Header};

const BATCH_SIZE: usize = 32;
const SHARD: usize = 1000;
const WINDOW: usize = 2000;

type Loader = PrefetchLoader<Box<dyn BatchSource<Batch = CaptionBatch>>>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["make", folder, count, side] => make(Path::new(folder), count.parse()?, side.parse()?),
        ["speed", folder, rounds, workers, side] => speed(
            Path::new(folder),
            rounds.parse()?,
            workers.parse()?,
            side.parse()?,
        ),
        ["memory", folder, "shards"] => memory(&shards(Path::new(folder), 2, 32)?),
        ["memory", folder, "folder"] => memory(&files(Path::new(folder), 2, 32)?),
        _ => Err("see the head of this file".into()),
    }
}

/// Writes `count` images as a folder with a JSONL and as shards in the layout of img2dataset.
fn make(folder: &Path, count: usize, side: u32) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder.join("images"))?;
    let mut list = BufWriter::new(File::create(folder.join("list.jsonl"))?);
    for (shard, start) in (0..count).step_by(SHARD).enumerate() {
        let numbers: Vec<usize> = (start..count.min(start + SHARD)).collect();
        let images: Vec<Vec<u8>> = numbers
            .par_iter()
            .map(|&number| jpeg(number, side))
            .collect();
        let file = BufWriter::new(File::create(folder.join(format!("{shard:05}.tar")))?);
        let mut tar = Builder::new(file);
        for (number, image) in numbers.into_iter().zip(images) {
            let caption = format!("picture number {number}");
            fs::write(folder.join(format!("images/{number:09}.jpg")), &image)?;
            writeln!(
                list,
                "{{\"image\": \"{number:09}.jpg\", \"caption\": \"{caption}\"}}"
            )?;
            let json = format!("{{\"caption\": \"{caption}\", \"status\": \"success\"}}");
            for (extension, bytes) in [
                ("jpg", &image[..]),
                ("json", json.as_bytes()),
                ("txt", caption.as_bytes()),
            ] {
                let mut header = Header::new_ustar();
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, format!("{number:09}.{extension}"), bytes)?;
            }
        }
        tar.into_inner()?.flush()?;
    }
    Ok(list.flush()?)
}

/// Waves and noise: a file as large as a photograph's.
fn jpeg(number: usize, side: u32) -> Vec<u8> {
    let mut noise = number as u32;
    let image = RgbImage::from_fn(side, side, |x, y| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let wave =
            |of: u32, scale: f32| ((of as f32 / scale + number as f32).sin() * 100.0 + 120.0) as u8;
        let grain = (noise >> 28) as u8;
        Rgb([
            wave(x, 9.0) + grain,
            wave(y, 17.0) + grain,
            wave(x + y, 31.0) + grain,
        ])
    });
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 85)
        .encode_image(&image)
        .expect("memory takes every image");
    bytes
}

fn speed(folder: &Path, rounds: usize, workers: usize, side: usize) -> Result<(), Box<dyn Error>> {
    let loaders = [
        ("folder", files(folder, workers, side)?),
        ("shards", shards(folder, workers, side)?),
    ];
    let mut rates = [Vec::new(), Vec::new()];
    let mut ratios = Vec::new();
    // The first round warms the system's cache; then each way is the first in turn.
    for round in 0..=rounds {
        for way in [round % 2, 1 - round % 2] {
            let (name, loader) = &loaders[way];
            let (started, cpu) = (Instant::now(), cpu_ticks()?);
            let images = read_all(loader)? as f64;
            let rate = images / started.elapsed().as_secs_f64();
            let cpu = (cpu_ticks()? - cpu) * 10.0 / images;
            println!("round {round} {name}: {rate:.0} images/s, {cpu:.3} ms of processor an image");
            rates[way].push(rate);
        }
        if round == 0 {
            rates = [Vec::new(), Vec::new()];
        } else {
            ratios.push(rates[1][round - 1] / rates[0][round - 1]);
        }
    }
    let [folder, shards] = rates.map(median);
    let ratio = median(ratios);
    println!("median: folder {folder:.0}, shards {shards:.0} images/s, of the ratios {ratio:.3}");
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The time that processors have spent on this process, in hundredths of a second (Linux).
fn cpu_ticks() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.split_whitespace().collect();
    Ok(fields[13].parse::<f64>()? + fields[14].parse::<f64>()?)
}

fn memory(loader: &Loader) -> Result<(), Box<dyn Error>> {
    let mut images = 0;
    for batch in loader.iter() {
        images += batch?.samples.len();
        if images % (1000 * BATCH_SIZE) == 0 {
            println!("{images} images, {}", status("VmRSS")?);
        }
    }
    println!("{images} images, {}", status("VmHWM")?);
    Ok(())
}

/// A line of what the system knows of this process (Linux).
fn status(name: &str) -> Result<String, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name));
    let words = line.unwrap_or_default().split_whitespace();
    Ok(words.collect::<Vec<_>>().join(" "))
}

fn read_all(loader: &Loader) -> Result<usize, Box<dyn Error>> {
    let mut images = 0;
    for batch in loader.iter() {
        images += batch?.samples.len();
    }
    Ok(images)
}

fn processor(side: usize) -> Result<ImageProcessor, Box<dyn Error>> {
    let config = ImageProcessorConfig {
        size: [side, side],
        resample: Resample::Bicubic,
        image_mean: [0.5; 3],
        image_std: [0.25; 3],
    };
    Ok(config.init()?)
}

fn files(folder: &Path, workers: usize, side: usize) -> Result<Loader, Box<dyn Error>> {
    let options = LoadOptions {
        format: None,
        split: None,
        on_error: OnError::Fail,
        require_captions: true,
    };
    let loaded = load(&folder.join("list.jsonl"), &folder.join("images"), &options)?;
    let samples = Arc::new(loaded.samples);
    let images = PixelSource::new(
        samples.clone(),
        processor(side)?,
        SkipLog::new(OnError::Fail),
    );
    let images = Arc::new(images);
    let source = CaptionSource::new(samples, images, CaptionChoice::All, Views::Fresh, 1);
    Ok(loader(Box::new(source), Some(1), workers))
}

fn shards(folder: &Path, workers: usize, side: usize) -> Result<Loader, Box<dyn Error>> {
    let skips = SkipLog::new(OnError::Fail);
    let pattern: PathBuf = folder.join("*.tar");
    let source = Source::shards("bench", 1.0, &[pattern], None, &skips)?;
    let options = StreamOptions {
        // A line of the list is a sample.
        epoch_samples: BufReader::new(File::open(folder.join("list.jsonl"))?)
            .lines()
            .count(),
        shuffle_window: WINDOW,
        seed: 1,
        captions: CaptionChoice::All,
        cleaning: None,
    };
    let preparation = Preparation::new(processor(side)?);
    let source = StreamSource::new(vec![source], options, preparation, skips, None)?;
    Ok(loader(Box::new(source), None, workers))
}

fn loader(
    source: Box<dyn BatchSource<Batch = CaptionBatch>>,
    shuffle: Option<u64>,
    num_workers: usize,
) -> Loader {
    let options = LoaderOptions {
        batch_size: BATCH_SIZE,
        num_workers,
        shuffle,
        drop_last: false,
    };
    PrefetchLoader::new(Arc::new(source), options, &Device::default())
}
