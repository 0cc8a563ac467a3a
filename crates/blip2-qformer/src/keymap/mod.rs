//! What other codebases call the weights: Hugging Face, LAVIS, mmpretrain.
//!
//! Burn calls a norm's weight and bias `gamma` and `beta`, and keeps a linear weight as `[in, out]`
//! where torch has `[out, in]`: whoever loads transposes it. No other weight changes its shape.

mod tables;

use self::tables::{KeyRule, QUERY_FEED_FORWARD, TEXT_FEED_FORWARD, Table};

/// A codebase's way of naming the weights of a [`QFormer`](crate::QFormer) and of the
/// [`VisionNeck`](crate::VisionNeck).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// transformers' BLIP-2.
    HuggingFace,
    /// LAVIS's, in the models with OPT.
    Lavis,
    /// mmpretrain's.
    Mmpretrain,
}

impl Names {
    /// Their name of our `path` in a Q-Former; a norm's parameters may have Burn's names or torch's.
    /// Unknown names stay as they are.
    pub fn key(self, path: &str) -> String {
        let table = self.table();
        let path = torch_norm(path);
        let in_layer = path.strip_prefix(table.layers.ours).and_then(|rest| {
            let (index, rest) = rest.split_once('.')?;
            let rest = forth(table.attention, rest)
                .or_else(|| forth(&QUERY_FEED_FORWARD, rest))
                .or_else(|| forth(&TEXT_FEED_FORWARD, rest))?;
            Some(format!("{}{index}.{rest}", table.layers.theirs))
        });
        in_layer
            .or_else(|| forth(table.queries, &path))
            .or_else(|| forth(table.text, &path))
            .unwrap_or(path)
    }

    /// Our path of their `key` on the query side, which is all that a captioner has.
    pub fn locate(self, key: &str) -> Option<String> {
        let table = self.table();
        self.back(key, table.queries, &[table.attention, &QUERY_FEED_FORWARD])
    }

    /// Our path of their `key` on the text side: word and position embeddings, and a feed-forward
    /// of its own in each layer. Two kinds of key of LAVIS and mmpretrain belong to neither side:
    /// the buffer `embeddings.position_ids`, and the language-model head `cls`.
    pub fn locate_text(self, key: &str) -> Option<String> {
        self.back(key, self.table().text, &[&TEXT_FEED_FORWARD])
    }

    /// Their name of our `path` in a neck.
    pub fn neck_key(self, path: &str) -> String {
        forth(&[self.table().neck], path).unwrap_or_else(|| path.to_string())
    }

    /// Our path of their `key` in a neck.
    pub fn locate_neck(self, key: &str) -> Option<String> {
        back(&[self.table().neck], key)
    }

    fn back(self, key: &str, outside: &[KeyRule], inside: &[&[KeyRule]]) -> Option<String> {
        let layers = self.table().layers;
        let path = match key.strip_prefix(layers.theirs) {
            Some(rest) => {
                let (index, rest) = rest.split_once('.')?;
                let rest = inside.iter().find_map(|rules| back(rules, rest))?;
                format!("{}{index}.{rest}", layers.ours)
            }
            None => back(outside, key)?,
        };
        Some(burn_norm(path))
    }

    fn table(self) -> &'static Table {
        match self {
            Self::HuggingFace => &tables::HUGGING_FACE,
            Self::Lavis => &tables::LAVIS,
            Self::Mmpretrain => &tables::MMPRETRAIN,
        }
    }
}

fn torch_norm(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((norm, "gamma")) => format!("{norm}.weight"),
        Some((norm, "beta")) => format!("{norm}.bias"),
        _ => path.to_string(),
    }
}

fn burn_norm(path: String) -> String {
    match path.rsplit_once('.') {
        Some((norm, "weight")) if norm.ends_with("layer_norm") => format!("{norm}.gamma"),
        Some((norm, "bias")) if norm.ends_with("layer_norm") => format!("{norm}.beta"),
        _ => path,
    }
}

fn forth(rules: &[KeyRule], path: &str) -> Option<String> {
    rules
        .iter()
        .find_map(|rule| Some(format!("{}{}", rule.theirs, path.strip_prefix(rule.ours)?)))
}

fn back(rules: &[KeyRule], key: &str) -> Option<String> {
    rules
        .iter()
        .find_map(|rule| Some(format!("{}{}", rule.ours, key.strip_prefix(rule.theirs)?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::{QFormerConfig, QFormerTextConfig};

    const ALL: [Names; 3] = [Names::HuggingFace, Names::Lavis, Names::Mmpretrain];

    /// Collects the paths of all weights.
    #[derive(Default)]
    struct Paths {
        place: Vec<String>,
        paths: Vec<String>,
    }

    impl ModuleVisitor for Paths {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.place.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.place.pop();
        }

        fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
            self.paths.push(self.place.join("."));
        }
    }

    fn paths(text: Option<QFormerTextConfig>) -> BTreeSet<String> {
        let config = QFormerConfig {
            hidden_size: 12,
            intermediate_size: 4,
            text,
            ..QFormerConfig::bert_base(4)
        };
        let mut paths = Paths::default();
        config.init(&Device::default()).unwrap().visit(&mut paths);
        paths.paths.into_iter().collect()
    }

    #[test]
    fn every_weight_goes_there_and_back_on_one_side_alone() {
        let caption = paths(None);
        let all = paths(Some(QFormerTextConfig {
            vocab_size: 5,
            max_position_embeddings: 3,
            pad_token_id: 0,
        }));
        // Two embeddings, and six parameters of a feed-forward in each of twelve layers.
        assert_eq!(all.len(), caption.len() + 2 + 12 * 6);
        for names in ALL {
            let mut seen = BTreeSet::new();
            for path in &all {
                let key = names.key(path);
                // All but the queries change: an unknown path would come back as it is.
                assert!(&key != path || path == "query_tokens", "{path}");
                assert!(seen.insert(key.clone()), "{key} has two paths");
                let (query, text) = (names.locate(&key), names.locate_text(&key));
                let (known, unknown) = match caption.contains(path) {
                    true => (query, text),
                    false => (text, query),
                };
                assert_eq!(known.as_ref(), Some(path), "{key}");
                assert_eq!(unknown, None, "{key}");
                // A norm may come with torch's names.
                assert_eq!(names.key(&torch_norm(path)), key);
            }
        }
    }

    #[test]
    fn the_neck_goes_there_and_back() {
        for (names, key) in [
            (Names::HuggingFace, "language_projection.bias"),
            (Names::Lavis, "opt_proj.bias"),
            (Names::Mmpretrain, "vision_neck.fc.bias"),
        ] {
            assert_eq!(names.neck_key("projection.bias"), key);
            assert_eq!(names.locate_neck(key).as_deref(), Some("projection.bias"));
            assert_eq!(names.locate_neck("query_tokens"), None);
            assert_eq!(names.locate(key), None);
            assert_eq!(names.locate_text(key), None);
        }
    }

    /// A line for each rule that differs between the codebases: ours, Hugging Face's, LAVIS's.
    const NAMED: [[&str; 3]; 8] = [
        ["query_tokens", "query_tokens", "query_tokens"],
        [
            "layer_norm.gamma",
            "qformer.layernorm.weight",
            "Qformer.bert.embeddings.LayerNorm.weight",
        ],
        [
            "layers.0.attention.query.bias",
            "qformer.encoder.layer.0.attention.attention.query.bias",
            "Qformer.bert.encoder.layer.0.attention.self.query.bias",
        ],
        [
            "layers.10.crossattention.value.weight",
            "qformer.encoder.layer.10.crossattention.attention.value.weight",
            "Qformer.bert.encoder.layer.10.crossattention.self.value.weight",
        ],
        [
            "layers.2.crossattention.output.layer_norm.beta",
            "qformer.encoder.layer.2.crossattention.output.LayerNorm.bias",
            "Qformer.bert.encoder.layer.2.crossattention.output.LayerNorm.bias",
        ],
        [
            "layers.1.intermediate_query.weight",
            "qformer.encoder.layer.1.intermediate_query.dense.weight",
            "Qformer.bert.encoder.layer.1.intermediate_query.dense.weight",
        ],
        [
            "text_embeddings.word_embeddings.weight",
            "embeddings.word_embeddings.weight",
            "Qformer.bert.embeddings.word_embeddings.weight",
        ],
        [
            "layers.3.output.layer_norm.gamma",
            "qformer.encoder.layer.3.output.LayerNorm.weight",
            "Qformer.bert.encoder.layer.3.output.LayerNorm.weight",
        ],
    ];

    #[test]
    fn keys_are_those_of_the_codebases() {
        for [ours, hugging_face, lavis] in NAMED {
            assert_eq!(Names::HuggingFace.key(ours), hugging_face);
            assert_eq!(Names::Lavis.key(ours), lavis);
            let mmpretrain = lavis.replace("Qformer.", "multimodal_backbone.");
            assert_eq!(Names::Mmpretrain.key(ours), mmpretrain);
        }
    }

    #[test]
    fn keys_of_other_parts_have_no_path() {
        for key in [
            "qformer.encoder.layer.3.attention.query.weight",
            "vision_model.post_layernorm.weight",
            "Qformer.bert.embeddings.position_ids",
            "Qformer.cls.predictions.bias",
            "visual_encoder.blocks.0.norm1.weight",
        ] {
            for names in ALL {
                assert_eq!(names.locate(key), None, "{key}");
                assert_eq!(names.locate_text(key), None, "{key}");
            }
        }
    }
}
