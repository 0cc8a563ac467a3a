//! Parameters by part, frozen and trained.

use std::collections::{BTreeMap, BTreeSet};

use blip2::checkpoint::Architecture;
use blip2::checkpoint::names::Part;
use blip2::stage1::Blip2Qformer;
use blip2::{Blip2Caption, Tower};
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

/// Which parts are constants, and what adapters they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frozen {
    parts: BTreeSet<Part>,
    /// Parameters of adapters by part.
    adapters: BTreeMap<Part, usize>,
}

impl Frozen {
    /// As `model` has them.
    pub fn of(model: &Blip2Caption) -> Self {
        let constant = [
            (Part::VisionBackbone, constant(&model.vision_backbone)),
            (Part::LnVision, constant(&model.ln_vision)),
            (
                Part::MultimodalBackbone,
                constant(&model.multimodal_backbone),
            ),
            (Part::VisionNeck, constant(&model.vision_neck)),
            (Part::TextBackbone, constant(&model.text_backbone)),
        ];
        let mut adapters = BTreeMap::new();
        for adapted in model.adapted_layers() {
            *adapters.entry(adapted.layer.weight.part).or_default() += adapted.num_params();
        }
        let parts = constant.into_iter().filter(|(_, constant)| *constant);
        Self {
            parts: parts.map(|(part, _)| part).collect(),
            adapters,
        }
    }

    /// Both towers, as imported models have them.
    pub fn both() -> Self {
        Self {
            parts: [Part::VisionBackbone, Part::TextBackbone].into(),
            adapters: BTreeMap::new(),
        }
    }
}

fn constant<M>(tower: &Tower<M>) -> bool {
    !matches!(tower, Tower::Trained(_))
}

/// The parts of a captioner in the order of the data, each with its adapters after it.
pub fn parameter_rows(architecture: &Architecture, frozen: &Frozen) -> Vec<PartRow> {
    let mut rows = Vec::new();
    for part in Part::ALL {
        rows.push(PartRow {
            name: part.name(),
            params: architecture.part_params(part),
            frozen: frozen.parts.contains(&part),
        });
        if let Some(&params) = frozen.adapters.get(&part) {
            rows.push(PartRow {
                name: match part {
                    Part::VisionBackbone => "vision_backbone LoRA",
                    Part::MultimodalBackbone => "multimodal_backbone LoRA",
                    _ => "text_backbone LoRA",
                },
                params,
                frozen: false,
            });
        }
    }
    rows
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
    let mut lines = vec![format!("{:<25}{:>14}  ", "part", "parameters")];
    for row in rows {
        let state = if row.frozen { "frozen" } else { "trained" };
        lines.push(format!(
            "{:<25}{:>14}  {state}",
            row.name,
            thousands(row.params)
        ));
    }
    let sum = |frozen| {
        let rows = rows.iter().filter(|row| row.frozen == frozen);
        thousands(rows.map(|row| row.params).sum())
    };
    lines.push(format!("{:<25}{:>14}", "sum trained", sum(false)));
    lines.push(format!("{:<25}{:>14}", "sum frozen", sum(true)));
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
