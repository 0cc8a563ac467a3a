//! `blip2 match`.

use std::path::PathBuf;

use blip2::stage1::{Blip2Qformer, match_probability};
use burn::tensor::Device;
use serde::Serialize;

use super::{json, result_line, stage1};
use crate::RunError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: stage1::Args,
    /// An image; may be repeated.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    image: Vec<PathBuf>,
    /// A text; may be repeated.
    #[arg(long, value_name = "TEXT", required = true)]
    text: Vec<String>,
    /// One JSON object a pair.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    image: String,
    text: &'a str,
    /// The cosine of the most similar query (image–text contrast).
    itc: f32,
    /// The probability that both match (image–text matching).
    itm: f32,
}

pub(super) fn run(args: Args, device: &Device) -> Result<(), RunError> {
    let loaded = args.model.load(device)?;
    let texts: Vec<&str> = args.text.iter().map(String::as_str).collect();
    let text_features = loaded.model.text_features(&texts)?;
    stage1::for_images(&args.image, &loaded, device, |pixels, first| {
        let features = loaded.model.image_features(pixels);
        let itc = Blip2Qformer::similarity(features.features, text_features.clone());
        let [images, _] = itc.dims();
        let pairs: Vec<(usize, usize)> = (0..images)
            .flat_map(|image| (0..texts.len()).map(move |text| (image, text)))
            .collect();
        let logits = loaded
            .model
            .matching(&features.image_embeds, &texts, &pairs)?;
        let itm = match_probability(logits).into_data();
        let scores = itc.into_data();
        let scores = scores.iter::<f32>().zip(itm.iter::<f32>());
        for (&(image, text), (itc, itm)) in pairs.iter().zip(scores) {
            let line = Line {
                image: args.image[first + image].display().to_string(),
                text: texts[text],
                itc,
                itm,
            };
            result_line(&match args.json {
                true => json(&line)?,
                false => format!("itc {itc:.4}  itm {itm:.4}  {}  {}", line.image, line.text),
            })?;
        }
        Ok(())
    })
}
