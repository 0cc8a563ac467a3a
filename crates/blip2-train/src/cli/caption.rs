//! `blip2 caption`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blip2_data::CaptionSample;
use blip2_data::annotations::OnError;
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::{DecodeLimits, probe};
use burn::tensor::Device;
use serde::Serialize;

use super::caption_set::{self, CaptionSet};
use super::model::{TowerDType, TowerProducts, load};
use super::{json, result_line};
use crate::RunError;
use crate::captioning::{CaptionedImage, Captioner};
use crate::plan::preflight;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run folder, a folder in the Hugging Face layout, or a model of the hub (owner/name).
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// A folder with LoRA adapters for it, in PEFT's layout.
    #[arg(long, value_name = "DIR")]
    lora: Option<PathBuf>,
    /// An image; may be repeated.
    #[arg(long, value_name = "PATH", required_unless_present = "images", num_args = 1..)]
    image: Vec<PathBuf>,
    #[command(flatten)]
    set: caption_set::Args,
    /// The text that the caption goes on from, instead of the model's.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Captions an image, best first.
    #[arg(long, value_name = "N", default_value_t = 1)]
    num_captions: usize,
    /// Images at once.
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch_size: usize,
    #[command(flatten)]
    generation: super::generation::Args,
    /// In what precision the frozen towers of an imported model are kept.
    #[arg(long, value_enum, default_value_t = TowerDType::Stored)]
    dtype: TowerDType,
    /// In what precision the model multiplies; bf16 is faster on processors with AVX-512 BF16,
    /// int8 on those with AVX-512 VNNI.
    #[arg(long, value_enum)]
    compute: Option<TowerProducts>,
    /// One JSON object an image.
    #[arg(long)]
    json: bool,
}

/// What the captions of a set depend on, as its files keep it.
#[derive(Serialize)]
struct Settings<'a> {
    model: &'a Path,
    lora: Option<&'a Path>,
    prompt: Option<&'a str>,
    num_captions: usize,
    #[serde(flatten)]
    generation: &'a super::generation::Args,
    dtype: TowerDType,
    compute: Option<TowerProducts>,
    #[serde(flatten)]
    set: caption_set::Flags<'a>,
}

pub(super) fn run(args: Args, device: &Device, ignore_memory: bool) -> Result<(), RunError> {
    if args.batch_size == 0 || args.num_captions == 0 {
        return Err(RunError::Usage(
            "--batch-size and --num-captions must be at least 1".into(),
        ));
    }
    let mut set = args.set.open(|set| Settings {
        model: &args.model,
        lora: args.lora.as_deref(),
        prompt: args.prompt.as_deref(),
        num_captions: args.num_captions,
        generation: &args.generation,
        dtype: args.dtype,
        compute: args.compute,
        set,
    })?;
    if let Some(finished) = set.take_if(|set| set.pending() == 0) {
        return finished.finish();
    }
    let limits = DecodeLimits::default();
    for image in &args.image {
        probe(image, &limits)?;
    }
    let loaded = load(
        &args.model,
        args.lora.as_deref(),
        args.dtype,
        args.compute,
        device,
    )?;
    let generation = args
        .generation
        .apply(&loaded.generation, args.num_captions)?;
    let images = set.as_ref().map_or(args.image.len(), CaptionSet::pending);
    preflight::captioning(
        &loaded.model,
        &generation,
        args.prompt.as_deref().unwrap_or_default(),
        args.batch_size.min(images),
        device,
        ignore_memory,
    )?;
    if let Some(mut set) = set {
        let captioner = Captioner {
            model: &loaded.model,
            processor: &loaded.processor,
            generation: &generation,
            prompt: args.prompt.as_deref(),
            num_captions: args.num_captions,
            batch_size: args.batch_size,
            device,
        };
        set.run(&captioner, |captioned| print(&captioned, args.json))?;
        return set.finish();
    }
    let skips = SkipLog::new(OnError::Fail);
    let samples: Vec<Sample> = args
        .image
        .iter()
        .map(|path| Sample {
            image_id: path.display().to_string(),
            file_name: path.display().to_string(),
            path: path.clone(),
            captions: Vec::new(),
        })
        .collect();
    let samples = Arc::new(samples);
    for chunk in samples.chunks(args.batch_size) {
        let rows: Vec<&Sample> = chunk.iter().collect();
        let (images, _) =
            blip2_data::images::read_images(&rows, &loaded.processor, &limits, &skips, device)?;
        let batch = chunk
            .iter()
            .map(|sample| CaptionSample {
                image_id: sample.image_id.clone(),
                prompt: args.prompt.clone(),
                ..CaptionSample::default()
            })
            .collect();
        for sample in loaded.model.predict(images, batch, &generation)? {
            print(&CaptionedImage::best(sample, args.num_captions), args.json)?;
        }
    }
    Ok(())
}

fn print(captioned: &CaptionedImage, as_json: bool) -> Result<(), RunError> {
    if as_json {
        return result_line(&json(captioned)?);
    }
    for prediction in &captioned.captions {
        result_line(&prediction.caption)?;
    }
    Ok(())
}
