//! What a report of stage 1 shows: recalls.

use super::page::escape;
use crate::train::Stage1Scores;

/// Recalls of each test split, by contrast alone and re-ranked.
pub(super) fn scores_section(scores: &Stage1Scores) -> String {
    let mut html = format!(
        "<h2>Retrieval</h2><p class=note>×100, as papers print them; checkpoint of step {}</p>\
         <table><tr><th>split<th>order",
        scores.checkpoint_step
    );
    let first = scores.splits.values().next();
    for (name, _) in first.into_iter().flat_map(|split| split.itm.iter()) {
        html += &format!("<th>{}", name.replace('_', " "));
    }
    for (split, found) in &scores.splits {
        for (order, recalls) in [("contrast", &found.itc), ("matching", &found.itm)] {
            html += &format!("<tr><td>{}<td>{order}", escape(split));
            for (_, value) in recalls.iter() {
                html += &format!("<td>{:.1}", value * 100.0);
            }
        }
    }
    html + "</table>"
}
