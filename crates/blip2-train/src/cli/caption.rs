//! `blip2 caption`.

use std::path::PathBuf;
use std::sync::Arc;

use blip2_data::CaptionSample;
use blip2_data::Prediction;
use blip2_data::annotations::OnError;
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::{DecodeLimits, probe};
use blip2_lm::GenerationConfig;
use burn::tensor::Device;
use serde::Serialize;

use super::model::load;
use super::{json, result_line};
use crate::RunError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run folder.
    #[arg(long, value_name = "DIR_OR_RUN")]
    model: PathBuf,
    /// An image; may be repeated.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    image: Vec<PathBuf>,
    /// The text that the caption goes on from, instead of the model's.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Beams of the search; 1 is greedy. Default: as the run's tests.
    #[arg(long, value_name = "N")]
    num_beams: Option<usize>,
    /// Longest caption in tokens.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Shortest caption in tokens.
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<usize>,
    /// Captions an image, best first.
    #[arg(long, value_name = "N", default_value_t = 1)]
    num_captions: usize,
    /// Images at once.
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch_size: usize,
    /// One JSON object an image.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    image: String,
    captions: &'a [Prediction],
}

pub(super) fn run(args: Args, device: &Device) -> Result<(), RunError> {
    if args.batch_size == 0 || args.num_captions == 0 {
        return Err(RunError::Usage(
            "--batch-size and --num-captions must be at least 1".into(),
        ));
    }
    let limits = DecodeLimits::default();
    for image in &args.image {
        probe(image, &limits)?;
    }
    let loaded = load(&args.model, device)?;
    let generation = generation(
        &args,
        loaded
            .recipe
            .evaluation
            .as_ref()
            .map(|e| &e.test_generation),
    );
    generation
        .validate()
        .map_err(|error| RunError::Usage(error.to_string()))?;
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
            blip2_data::batch::read_images(&rows, &loaded.processor, &limits, &skips, device)?;
        let batch = chunk
            .iter()
            .map(|sample| CaptionSample {
                image_id: sample.image_id.clone(),
                prompt: args.prompt.clone(),
                ..CaptionSample::default()
            })
            .collect();
        for sample in loaded.model.predict(images, batch, &generation)? {
            print(&sample, &args)?;
        }
    }
    Ok(())
}

fn print(sample: &CaptionSample, args: &Args) -> Result<(), RunError> {
    let captions = &sample.predictions[..args.num_captions.min(sample.predictions.len())];
    if args.json {
        return result_line(&json(&Line {
            image: sample.image_id.clone(),
            captions,
        })?);
    }
    for prediction in captions {
        result_line(&prediction.caption)?;
    }
    Ok(())
}

fn generation(args: &Args, preset: Option<&GenerationConfig>) -> GenerationConfig {
    let preset = preset.cloned().unwrap_or_default();
    let num_beams = args.num_beams.unwrap_or(preset.num_beams);
    GenerationConfig {
        // Several captions come out of several beams.
        num_beams: if preset.do_sample {
            num_beams
        } else {
            num_beams.max(args.num_captions)
        },
        max_new_tokens: args.max_new_tokens.unwrap_or(preset.max_new_tokens),
        min_new_tokens: args.min_new_tokens.unwrap_or(preset.min_new_tokens),
        num_return_sequences: args.num_captions,
        ..preset
    }
}
