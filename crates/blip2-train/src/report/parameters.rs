//! Parameters by part, frozen and trained.

use blip2::Blip2Caption;
use blip2::checkpoint::Architecture;
use blip2::checkpoint::names::Part;
use blip2::stage1::Blip2Qformer;
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

/// Which towers are constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    /// The image encoder.
    pub vision: bool,
    /// The language model.
    pub text: bool,
}

impl Frozen {
    /// As `model` has them.
    pub fn of(model: &Blip2Caption) -> Self {
        Self {
            vision: model.vision_backbone.is_frozen(),
            text: model.text_backbone.is_frozen(),
        }
    }

    /// Both, as imported models have them.
    pub fn both() -> Self {
        Self {
            vision: true,
            text: true,
        }
    }
}

/// The parts of a captioner in the order of the data.
pub fn parameter_rows(architecture: &Architecture, frozen: Frozen) -> Vec<PartRow> {
    Part::ALL
        .into_iter()
        .map(|part| PartRow {
            name: part.name(),
            params: architecture.part_params(part),
            frozen: match part {
                Part::VisionBackbone => frozen.vision,
                Part::TextBackbone => frozen.text,
                _ => false,
            },
        })
        .collect()
}

/// The parts of a model of stage 1 in the order of the data.
pub fn stage1_rows(model: &Blip2Qformer) -> Vec<PartRow> {
    let row = |part: Part, params, frozen| PartRow {
        name: part.name(),
        params,
        frozen,
    };
    let vision = &model.vision_backbone;
    let params = vision.get().num_params();
    vec![
        row(Part::VisionBackbone, params, vision.is_frozen()),
        row(Part::LnVision, model.ln_vision.num_params(), false),
        row(
            Part::MultimodalBackbone,
            model.multimodal_backbone.num_params(),
            false,
        ),
        row(Part::Heads, model.heads.num_params(), false),
    ]
}

/// The rows as lines of text, with sums.
pub fn parameter_table(rows: &[PartRow]) -> String {
    let mut lines = vec![format!("{:<22}{:>14}  ", "part", "parameters")];
    for row in rows {
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
