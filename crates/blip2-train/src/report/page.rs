//! The page itself: tables, charts, a grid of images with captions.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use blip2_data::skips::SkipLog;
use blip2_data::transforms::{DecodeLimits, decode};
use image::{DynamicImage, ImageFormat};

use super::curves::{Line, chart};
use super::parameters::{PartRow, thousands};
use super::samples::{left_out_section, samples_section};
use super::{GRID_IMAGES, Shown};
use crate::RunError;
use crate::recipe::Recipe;
use crate::recipe_file;
use crate::run::{Record, RunFolder};
use crate::train::FinalScores;

/// Longest side of an image in the grid, in pixels.
const THUMBNAIL: u32 = 192;

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1c2330;background:#fff}
h1{margin-bottom:0}h2{margin-top:2.2rem;border-bottom:1px solid #dde2ea}
table{border-collapse:collapse}td,th{padding:.25rem .9rem;text-align:right;border-bottom:1px solid #eef1f5}
td:first-child,th:first-child{text-align:left}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:1rem}
figure{margin:0}figcaption{font-weight:600}svg{width:100%;font:11px system-ui,sans-serif}
polyline{fill:none;stroke-width:1.6}.grid{stroke:#e6eaf0}.legend{margin:0;font-size:13px}
.images{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:1.2rem}
.images img{max-width:100%;border-radius:6px;border:1px solid #dde2ea}
.pred{font-weight:600;margin:.3rem 0}.refs{color:#5b6675;font-size:12.5px;margin:0;padding-left:1rem}
pre{background:#f6f8fa;padding:1rem;overflow:auto;font-size:12.5px}.note{color:#5b6675}";

/// What the page shows.
pub(super) struct Page<'a> {
    pub folder: &'a RunFolder,
    pub recipe: &'a Recipe,
    pub parts: Vec<PartRow>,
    pub scores: &'a FinalScores,
    pub shown: &'a [Shown],
    pub skips: &'a SkipLog,
    pub records: &'a [Record],
}

impl Page<'_> {
    pub fn html(&self) -> Result<String, RunError> {
        let name = self
            .folder
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let name = escape(&name);
        let sections = [
            self.scores_section(),
            self.charts_section(),
            samples_section(self.records),
            left_out_section(self.records),
            self.images_section()?,
            self.parameters_section(),
            self.throughput_section(),
            self.skipped_section(),
            format!(
                "<h2>Config</h2><pre>{}</pre>",
                escape(&recipe_file::write(self.recipe)?)
            ),
        ];
        Ok(format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title>\
             <style>{STYLE}</style><h1>{name}</h1>{}</html>\n",
            sections.join("\n")
        ))
    }

    fn scores_section(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for split in self.scores.splits.values() {
            names = split.scores.iter().map(|(name, _)| name).collect();
        }
        let mut html = format!(
            "<h2>Scores</h2><p class=note>×100, as papers print them; checkpoint of step {}</p>\
             <table><tr><th>split<th>images",
            self.scores.checkpoint_step
        );
        for name in &names {
            html += &format!("<th>{name}");
        }
        html += "<th>best constant caption: CIDEr<th>empty captions";
        for (split, scores) in &self.scores.splits {
            html += &format!("<tr><td>{}<td>{}", escape(split), scores.images);
            for (_, value) in scores.scores.iter() {
                html += &format!("<td>{:.1}", value * 100.0);
            }
            let constant = self.scores.constant_caption.get(split);
            html += &format!(
                "<td>{:.1}<td>{:.1} %",
                constant.map_or(0.0, |constant| constant.cider * 100.0),
                scores.empty_rate * 100.0
            );
        }
        html + "</table>"
    }

    fn charts_section(&self) -> String {
        let (mut train, mut lr, mut valid, mut score) = (vec![], vec![], vec![], vec![]);
        let mut metric_name = "score";
        for record in self.records {
            match record {
                Record::Train {
                    step,
                    loss,
                    lr: rate,
                    ..
                } => {
                    train.push((*step as f64, *loss));
                    lr.push((*step as f64, *rate));
                }
                Record::Valid {
                    step,
                    loss,
                    metric,
                    score: value,
                    ..
                } => {
                    valid.push((*step as f64, *loss));
                    score.push((*step as f64, *value));
                    metric_name = metric;
                }
                Record::Skipped { .. } | Record::Samples { .. } => {}
            }
        }
        let line = |name, colour, points| Line {
            name,
            colour,
            points,
        };
        format!(
            "<h2>Training</h2><div class=charts>{}{}{}</div>",
            chart(
                "loss over steps",
                &[
                    line("train", "#3b76d9", train),
                    line("validation", "#d9703b", valid)
                ]
            ),
            chart(
                &format!("validation {metric_name} over steps"),
                &[line(metric_name, "#2f9e63", score)]
            ),
            chart(
                "learning rate over steps",
                &[line("learning rate", "#7a5bc4", lr)]
            ),
        )
    }

    fn images_section(&self) -> Result<String, RunError> {
        let mut html = String::new();
        for (split, samples, captions) in self.shown {
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

    fn parameters_section(&self) -> String {
        let mut html = "<h2>Parameters</h2><table><tr><th>part<th>frozen<th>trained".to_string();
        let (mut frozen, mut trained) = (0, 0);
        for part in &self.parts {
            let count = thousands(part.params);
            let cells = if part.frozen {
                frozen += part.params;
                format!("<td>{count}<td>")
            } else {
                trained += part.params;
                format!("<td><td>{count}")
            };
            html += &format!("<tr><td>{}{cells}", part.name);
        }
        html += &format!(
            "<tr><th>sum<th>{}<th>{}</table>",
            thousands(frozen),
            thousands(trained)
        );
        for (tower, hash) in &self.scores.frozen_towers {
            html += &format!(
                "<p class=note>{tower} is bit-identical before and after: sha256 {hash}</p>"
            );
        }
        html
    }

    fn throughput_section(&self) -> String {
        let mut rates: Vec<f64> = Vec::new();
        let mut validation = 0.0;
        for record in self.records {
            match record {
                Record::Train { items_per_s, .. } => rates.push(*items_per_s),
                Record::Valid { seconds, .. } => validation += seconds,
                Record::Skipped { .. } | Record::Samples { .. } => {}
            }
        }
        rates.sort_by(f64::total_cmp);
        let median = rates.get(rates.len() / 2).copied().unwrap_or(0.0);
        let mut html = format!(
            "<h2>Throughput</h2><table><tr><td>training, median<td>{median:.1} images/s\
             <tr><td>validation<td>{validation:.0} s in all"
        );
        for (split, scores) in &self.scores.splits {
            html += &format!(
                "<tr><td>captions of {}<td>{:.1} images/s",
                escape(split),
                scores.captions_per_s
            );
        }
        html + "</table>"
    }

    fn skipped_section(&self) -> String {
        let (count, named) = (self.skips.count(), self.skips.list());
        if count == 0 {
            return String::new();
        }
        let mut html = format!("<h2>Skipped: {count}</h2><ul>");
        for entry in &named {
            html += &format!("<li>{}: {}", escape(&entry.what), escape(&entry.reason));
        }
        if count > named.len() {
            html += &format!("<li>and {} more: log.txt names them", count - named.len());
        }
        html + "</ul>"
    }
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

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
