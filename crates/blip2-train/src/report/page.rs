//! The page itself: what every task's report shows.

use std::collections::BTreeMap;

use blip2_data::skips::SkipLog;

use super::curves::{Line, chart};
use super::parameters::{PartRow, thousands};
use super::samples::{left_out_section, samples_section};
use crate::RunError;
use crate::recipe::Recipe;
use crate::recipe_file;
use crate::run::{Record, RunFolder};

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

/// Of lines in one chart.
const COLOURS: [&str; 4] = ["#3b76d9", "#d9703b", "#2f9e63", "#7a5bc4"];

/// What the page shows.
pub(super) struct Page<'a> {
    pub folder: &'a RunFolder,
    pub recipe: &'a Recipe,
    pub parts: Vec<PartRow>,
    /// SHA-256 by name.
    pub frozen_towers: &'a BTreeMap<String, String>,
    /// The task's own section of scores.
    pub scores: String,
    /// The task's own section of images; may be empty.
    pub images: String,
    /// What else was timed, in images a second.
    pub rates: Vec<(String, f64)>,
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
            self.scores.clone(),
            self.charts_section(),
            samples_section(self.records),
            left_out_section(self.records),
            self.images.clone(),
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

    fn charts_section(&self) -> String {
        let (mut train, mut lr, mut valid, mut score) = (vec![], vec![], vec![], vec![]);
        let mut parts: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        let mut metric_name = "score";
        for record in self.records {
            match record {
                Record::Train {
                    step,
                    loss,
                    losses,
                    lr: rate,
                    ..
                } => {
                    for (name, part) in losses {
                        let points: &mut Vec<_> = parts.entry(name.as_str()).or_default();
                        points.push((*step as f64, *part));
                    }
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
            "<h2>Training</h2><div class=charts>{}{}{}{}</div>",
            chart(
                "loss over steps",
                &[
                    line("train", "#3b76d9", train),
                    line("validation", "#d9703b", valid)
                ]
            ),
            match parts.is_empty() {
                true => String::new(),
                false => chart(
                    "parts of the loss over steps",
                    &parts
                        .into_iter()
                        .zip(COLOURS.iter().cycle())
                        .map(|((name, points), colour)| line(name, colour, points))
                        .collect::<Vec<_>>(),
                ),
            },
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
        for (tower, hash) in self.frozen_towers {
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
        for (what, rate) in &self.rates {
            html += &format!("<tr><td>{}<td>{rate:.1} images/s", escape(what));
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

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
