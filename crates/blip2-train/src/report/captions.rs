//! What a captioner's report shows: scores, and a grid of images with captions.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use blip2_data::transforms::{DecodeLimits, decode};
use image::{DynamicImage, ImageFormat};

use super::page::escape;
use super::{GRID_IMAGES, Shown};
use crate::RunError;
use crate::train::FinalScores;

/// Longest side of an image in the grid, in pixels.
const THUMBNAIL: u32 = 192;

/// Scores of each test split.
pub(super) fn scores_section(scores: &FinalScores) -> String {
    let mut names: Vec<&str> = Vec::new();
    for split in scores.splits.values() {
        names = split.scores.iter().map(|(name, _)| name).collect();
    }
    let mut html = format!(
        "<h2>Scores</h2><p class=note>×100, as papers print them; checkpoint of step {}</p>\
         <table><tr><th>split<th>images",
        scores.checkpoint_step
    );
    for name in &names {
        html += &format!("<th>{name}");
    }
    html += "<th>best constant caption: CIDEr<th>empty captions";
    for (split, of_split) in &scores.splits {
        html += &format!("<tr><td>{}<td>{}", escape(split), of_split.images);
        for (_, value) in of_split.scores.iter() {
            html += &format!("<td>{:.1}", value * 100.0);
        }
        let constant = scores.constant_caption.get(split);
        html += &format!(
            "<td>{:.1}<td>{:.1} %",
            constant.map_or(0.0, |constant| constant.cider * 100.0),
            of_split.empty_rate * 100.0
        );
    }
    html + "</table>"
}

/// Images with predicted and reference captions.
///
/// # Errors
///
/// If an image can't be read.
pub(super) fn images_section(shown: &[Shown]) -> Result<String, RunError> {
    let mut html = String::new();
    for (split, samples, captions) in shown {
        html += &format!("<h2>{}</h2><div class=images>", escape(split));
        let by_id: BTreeMap<&str, _> = samples
            .iter()
            .map(|sample| (sample.image_id.as_str(), sample))
            .collect();
        // Spread over the split, always the same images.
        let stride = captions.len().div_ceil(GRID_IMAGES).max(1);
        for caption in captions.iter().step_by(stride) {
            let Some(sample) = by_id.get(caption.image_id.as_str()) else {
                continue;
            };
            html += &format!(
                "<div><img alt=\"{0}\" src=\"{1}\"><p class=pred>{2}</p><ul class=refs>",
                escape(&sample.file_name),
                thumbnail(&sample.path)?,
                escape(caption.pred_caption.as_deref().unwrap_or_default()),
            );
            for reference in sample.captions.iter().take(5) {
                html += &format!("<li>{}", escape(reference));
            }
            html += "</ul></div>";
        }
        html += "</div>";
    }
    Ok(html)
}

/// A small JPEG of the image as a data URL.
fn thumbnail(path: &Path) -> Result<String, RunError> {
    let image = DynamicImage::from(decode(path, &DecodeLimits::default())?);
    let mut bytes = Cursor::new(Vec::new());
    image
        .thumbnail(THUMBNAIL, THUMBNAIL)
        .write_to(&mut bytes, ImageFormat::Jpeg)
        .map_err(|error| RunError::io(path)(std::io::Error::other(error)))?;
    Ok(format!(
        "data:image/jpeg;base64,{}",
        base64(&bytes.into_inner())
    ))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
