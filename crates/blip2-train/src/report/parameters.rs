//! Parameters by part, frozen and trained.

use blip2::Blip2Caption;
use burn::module::Module;

/// One part of a captioner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRow {
    /// The field's name in the config.
    pub name: &'static str,
    /// Its parameters.
    pub params: usize,
    /// Whether they are constants.
    pub frozen: bool,
}

/// The parts of `model` in the order of the data.
pub fn parameter_rows(model: &Blip2Caption) -> Vec<PartRow> {
    let row = |name, params, frozen| PartRow {
        name,
        params,
        frozen,
    };
    vec![
        row(
            "vision_backbone",
            model.vision_backbone.get().num_params(),
            model.vision_backbone.is_frozen(),
        ),
        row("ln_vision", model.ln_vision.num_params(), false),
        row(
            "multimodal_backbone",
            model.multimodal_backbone.num_params(),
            false,
        ),
        row("vision_neck", model.vision_neck.num_params(), false),
        row(
            "text_backbone",
            model.text_backbone.get().num_params(),
            model.text_backbone.is_frozen(),
        ),
    ]
}

/// The rows as lines of text, with sums.
pub fn parameter_table(model: &Blip2Caption) -> String {
    let rows = parameter_rows(model);
    let mut lines = vec![format!("{:<22}{:>14}  ", "part", "parameters")];
    for row in &rows {
        let state = if row.frozen { "frozen" } else { "trained" };
        lines.push(format!(
            "{:<22}{:>14}  {state}",
            row.name,
            thousands(row.params)
        ));
    }
    let sum = |frozen| {
        let rows = rows.iter().filter(|row| row.frozen == frozen);
        thousands(rows.map(|row| row.params).sum())
    };
    lines.push(format!("{:<22}{:>14}", "sum trained", sum(false)));
    lines.push(format!("{:<22}{:>14}", "sum frozen", sum(true)));
    lines.join("\n")
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(12_345_678), "12,345,678");
    }
}
