//! What each codebase calls the heads of stage 1 and the Q-Former's text side.

use blip2_qformer::keymap::Names as QFormerNames;

use crate::checkpoint::names::{Layout, Meaning, Part, TIED, torch_norm, weight};

/// How a name starts here and there; a name without a full stop at its end is whole.
type Rule = (&'static str, &'static str);

/// transformers has neither temperature nor words.
const HUGGING_FACE: [Rule; 3] = [
    ("vision_proj.", "vision_projection."),
    ("text_proj.", "text_projection."),
    ("itm_head.", "itm_head."),
];

const LAVIS: [Rule; 7] = [
    ("vision_proj.", "vision_proj."),
    ("text_proj.", "text_proj."),
    ("itm_head.", "itm_head."),
    ("temp", "temp"),
    ("cls.bias", "Qformer.cls.predictions.bias"),
    ("cls.dense.", "Qformer.cls.predictions.transform.dense."),
    (
        "cls.layer_norm.",
        "Qformer.cls.predictions.transform.LayerNorm.",
    ),
];

/// The output layer of LAVIS's words: the word embedding and the bias again.
const LAVIS_TIED: &str = "Qformer.cls.predictions.decoder.";

/// What `key` is in a model of stage 1; a language model and its neck are dropped.
pub(in crate::checkpoint) fn meaning(layout: Layout, key: &str) -> Meaning {
    let (rules, names): (&[Rule], _) = match layout {
        Layout::HuggingFace => (&HUGGING_FACE, QFormerNames::HuggingFace),
        Layout::Lavis(_) if key.starts_with(LAVIS_TIED) => return Meaning::Dropped(TIED),
        Layout::Lavis(_) => (&LAVIS, QFormerNames::Lavis),
        Layout::Native => {
            return match key.strip_prefix("heads.") {
                Some(path) => weight(Part::Heads, path.to_string()),
                None => captioner(layout, key),
            };
        }
        _ => return captioner(layout, key),
    };
    let head = rules.iter().find_map(|(ours, theirs)| {
        let rest = key.strip_prefix(theirs)?;
        (theirs.ends_with('.') || rest.is_empty()).then(|| burn_norm(format!("{ours}{rest}")))
    });
    if let Some(path) = head {
        return weight(Part::Heads, path);
    }
    match names.locate_text(key) {
        Some(path) => weight(Part::MultimodalBackbone, path),
        None => captioner(layout, key),
    }
}

/// What `key` is in a captioner, without what only a captioner has.
fn captioner(layout: Layout, key: &str) -> Meaning {
    match layout.meaning(key) {
        Meaning::Weight(address, _)
            if matches!(address.part, Part::TextBackbone | Part::VisionNeck) =>
        {
            Meaning::Dropped("of the language model's side, which stage 1 has not")
        }
        meaning => meaning,
    }
}

/// The key of the head's tensor at `path`; our own where the layout has none.
pub(in crate::checkpoint) fn head_key(layout: Layout, path: &str) -> String {
    let rules: &[Rule] = match layout {
        Layout::HuggingFace => &HUGGING_FACE,
        Layout::Lavis(_) => &LAVIS,
        _ => &[],
    };
    let name = path.rsplit_once('.').map_or_else(
        || path.to_string(),
        |(module, name)| format!("{module}.{}", torch_norm(name)),
    );
    rules
        .iter()
        .find_map(|(ours, theirs)| Some(format!("{theirs}{}", name.strip_prefix(ours)?)))
        .unwrap_or_else(|| format!("{}.{path}", Part::Heads.name()))
}

/// Whether a file of `layout` has a place for the head's tensor at `path`.
pub(in crate::checkpoint) fn has_head(layout: Layout, path: &str) -> bool {
    layout == Layout::Native || !head_key(layout, path).starts_with("heads.")
}

fn burn_norm(path: String) -> String {
    match path.strip_prefix("cls.layer_norm.") {
        Some("weight") => "cls.layer_norm.gamma".into(),
        Some("bias") => "cls.layer_norm.beta".into(),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use blip2_vision::keymap::Names;

    use super::*;
    use crate::checkpoint::names::Address;

    #[test]
    fn heads_go_there_and_back() {
        let paths = [
            "vision_proj.weight",
            "text_proj.bias",
            "itm_head.weight",
            "temp",
            "cls.bias",
            "cls.dense.weight",
            "cls.layer_norm.gamma",
            "cls.layer_norm.beta",
        ];
        for layout in [
            Layout::Lavis(Names::Eva),
            Layout::HuggingFace,
            Layout::Native,
        ] {
            for path in paths {
                let known = has_head(layout, path);
                assert_eq!(
                    known,
                    layout != Layout::HuggingFace || path.contains("proj") || path.contains("itm")
                );
                if known {
                    let address = Address {
                        part: Part::Heads,
                        path: path.to_string(),
                    };
                    let keys = layout.keys(&address);
                    let back = meaning(layout, &keys[0].name);
                    assert_eq!(back, Meaning::Weight(address, None), "{}", keys[0].name);
                }
            }
        }
        let tied = "Qformer.cls.predictions.decoder.weight";
        assert_eq!(
            meaning(Layout::Lavis(Names::Eva), tied),
            Meaning::Dropped(TIED)
        );
    }
}
