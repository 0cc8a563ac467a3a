//! What became of the sample images' captions, and the steps that were left out.

use std::collections::BTreeMap;

use super::page::escape;
use crate::run::Record;

/// Steps that are shown, spread over the run.
const ROWS: usize = 12;

/// A table of captions, a row for some of the steps and a column for each image.
pub(super) fn samples_section(records: &[Record]) -> String {
    let samples: Vec<(usize, &BTreeMap<String, String>)> = records
        .iter()
        .filter_map(|record| match record {
            Record::Samples { step, captions, .. } => Some((*step, captions)),
            _ => None,
        })
        .collect();
    let Some((_, images)) = samples.last() else {
        return String::new();
    };
    let mut html = String::from("<h2>Sample captions</h2><table><tr><th>step");
    for image in images.keys() {
        html += &format!("<th>{}", escape(image));
    }
    let stride = samples.len().div_ceil(ROWS);
    // Counted from the end, so that the last one is there.
    let shown = samples.iter().rev().step_by(stride);
    for (step, captions) in shown.collect::<Vec<_>>().into_iter().rev() {
        html += &format!("<tr><td>{step}");
        for image in images.keys() {
            let caption = captions.get(image).map_or("", String::as_str);
            html += &format!("<td>{}", escape(caption));
        }
    }
    html + "</table>"
}

/// The steps that were not finite.
pub(super) fn left_out_section(records: &[Record]) -> String {
    let mut html = String::new();
    for record in records {
        if let Record::Skipped { step, tensor, .. } = record {
            html += &format!("<tr><td>{step}<td>{}", escape(tensor));
        }
    }
    if html.is_empty() {
        return html;
    }
    format!("<h2>Steps left out</h2><table><tr><th>step<th>not finite{html}</table>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_captions_are_always_shown() {
        let records: Vec<Record> = (1..=50)
            .map(|step| Record::Samples {
                step,
                epoch: 1,
                captions: BTreeMap::from([("7".to_string(), format!("a <dog> {step}"))]),
            })
            .collect();
        let html = samples_section(&records);
        assert!(html.contains("a &lt;dog&gt; 50"), "{html}");
        assert!(html.matches("<tr>").count() <= ROWS + 1);
        assert_eq!(samples_section(&[]), "");
        assert_eq!(left_out_section(&records), "");
    }
}
