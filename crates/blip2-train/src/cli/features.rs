//! `blip2 features`.

use std::collections::HashMap;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use super::{json, result_line, stage1};
use crate::RunError;
use crate::run::write_atomic;

/// Features for search: cosines of a text's features with each query's of an image, the greatest of which
/// is their similarity.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: stage1::Args,
    /// An image; may be repeated.
    #[arg(long, value_name = "PATH", num_args = 1.., required_unless_present = "text")]
    image: Vec<PathBuf>,
    /// A text; may be repeated.
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// Writes a safetensors file (`image_features` `[images, queries, channels]`, `text_features`
    /// `[texts, channels]`, names in its metadata) in place of JSON lines.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// One JSON object a line, which is what is written without it, too.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ImageLine<'a> {
    image: String,
    features: Vec<&'a [f32]>,
}

#[derive(Serialize)]
struct TextLine<'a> {
    text: &'a str,
    features: &'a [f32],
}

pub(super) fn run(args: Args, device: &Device) -> Result<(), RunError> {
    let loaded = args.model.load(device)?;
    let mut images: Vec<f32> = Vec::new();
    let architecture = loaded.model.architecture();
    let channels = architecture.heads.embed_dim;
    let queries = architecture.qformer.num_query_tokens;
    stage1::for_images(&args.image, &loaded, device, |pixels, first| {
        let features = values(loaded.model.image_features(pixels).features);
        if args.out.is_none() {
            for (image, features) in features.chunks_exact(queries * channels).enumerate() {
                result_line(&json(&ImageLine {
                    image: args.image[first + image].display().to_string(),
                    features: features.chunks_exact(channels).collect(),
                })?)?;
            }
        } else {
            images.extend(features);
        }
        Ok(())
    })?;
    let texts: Vec<&str> = args.text.iter().map(String::as_str).collect();
    let of_texts = match texts.is_empty() {
        true => Vec::new(),
        false => values(loaded.model.text_features(&texts)?),
    };
    let Some(out) = &args.out else {
        for (text, features) in texts.iter().zip(of_texts.chunks_exact(channels)) {
            result_line(&json(&TextLine { text, features })?)?;
        }
        return Ok(());
    };
    let bytes = |values: &[f32]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    };
    let (image_bytes, text_bytes) = (bytes(&images), bytes(&of_texts));
    let failed =
        |error: safetensors::SafeTensorError| RunError::io(out)(std::io::Error::other(error));
    let mut tensors = Vec::new();
    if !args.image.is_empty() {
        let shape = vec![args.image.len(), queries, channels];
        let view = TensorView::new(Dtype::F32, shape, &image_bytes).map_err(failed)?;
        tensors.push(("image_features", view));
    }
    if !texts.is_empty() {
        let shape = vec![texts.len(), channels];
        let view = TensorView::new(Dtype::F32, shape, &text_bytes).map_err(failed)?;
        tensors.push(("text_features", view));
    }
    let names: Vec<String> = args
        .image
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let metadata = HashMap::from([
        ("images".to_string(), json(&names)?),
        ("texts".to_string(), json(&texts)?),
    ]);
    let file = safetensors::serialize(tensors, Some(metadata)).map_err(failed)?;
    write_atomic(out, &file)?;
    result_line(&out.display().to_string())
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
