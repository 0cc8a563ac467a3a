//! Names of the weights in other codebases: Hugging Face, LAVIS, mmpretrain.
//!
//! For each there are five functions. `to_*` names any weight of a [`QFormer`](crate::QFormer),
//! `from_*` knows the query side alone, which is all that a captioner has, and `text_from_*` the
//! text side: whoever loads a Q-Former with a text branch asks both, and a key that neither knows
//! belongs to another part of the model. `neck_to_*` and `neck_from_*` are for the
//! [`VisionNeck`](crate::VisionNeck).
//!
//! Burn calls a norm's weight and bias `gamma` and `beta`, and keeps a linear weight as `[in, out]`
//! where torch has `[out, in]`: whoever loads transposes it (burn-store's `PyTorchToBurnAdapter`
//! does both). No other weight changes its shape.

mod hugging_face;
mod lavis;
mod mmpretrain;

pub use hugging_face::{
    from_hugging_face, neck_from_hugging_face, neck_to_hugging_face, text_from_hugging_face,
    to_hugging_face,
};
pub use lavis::{from_lavis, neck_from_lavis, neck_to_lavis, text_from_lavis, to_lavis};
pub use mmpretrain::{
    from_mmpretrain, neck_from_mmpretrain, neck_to_mmpretrain, text_from_mmpretrain, to_mmpretrain,
};

/// One line of a key map: a name starts with `ours` if and only if it starts with `theirs` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRule {
    /// How the name starts here.
    pub ours: &'static str,
    /// How it starts there.
    pub theirs: &'static str,
    /// Why they differ.
    pub reason: &'static str,
}

const fn rule(ours: &'static str, theirs: &'static str, reason: &'static str) -> KeyRule {
    KeyRule {
        ours,
        theirs,
        reason,
    }
}

const SAME: &str = "the same";
const QUERIES: &str = "the queries belong to the whole model there";
const NORM: &str = "one spelling for all norms here";
const PROJECTIONS: &str = "query, key and value are a module of their own inside BERT's attention";
const ACTIVATION: &str =
    "our layer applies the activation, so the module is the linear layer alone";
const ENCODER: &str = "our layers are not inside an `encoder`";
const TEXT_EMBEDDINGS: &str = "the vision model has embeddings too";
const NECK: &str = "the module is the neck, which the assembled model names";

/// Feed-forward of the queries, which all codebases name alike.
const QUERY_FEED_FORWARD: [KeyRule; 3] = [
    rule(
        "intermediate_query.",
        "intermediate_query.dense.",
        ACTIVATION,
    ),
    rule("output_query.dense.", "output_query.dense.", SAME),
    rule("output_query.layer_norm.", "output_query.LayerNorm.", NORM),
];

/// Feed-forward of the text, likewise.
const TEXT_FEED_FORWARD: [KeyRule; 3] = [
    rule("intermediate.", "intermediate.dense.", ACTIVATION),
    rule("output.dense.", "output.dense.", SAME),
    rule("output.layer_norm.", "output.LayerNorm.", NORM),
];

/// How one codebase names a Q-Former and its neck.
struct Names {
    /// The query side outside the layers.
    queries: &'static [KeyRule],
    /// The text side outside the layers.
    text: &'static [KeyRule],
    /// Where layer N stands.
    layers: KeyRule,
    /// Attention, inside a layer; shared by queries and text but for the cross-attention.
    attention: &'static [KeyRule],
    neck: KeyRule,
}

impl Names {
    /// Their name of our `path`; a norm's parameters may have Burn's names or torch's. Unknown
    /// names stay as they are.
    fn to(&self, path: &str) -> String {
        let path = torch_norm(path);
        let in_layer = path.strip_prefix(self.layers.ours).and_then(|rest| {
            let (index, rest) = rest.split_once('.')?;
            let rest = forth(self.attention, rest)
                .or_else(|| forth(&QUERY_FEED_FORWARD, rest))
                .or_else(|| forth(&TEXT_FEED_FORWARD, rest))?;
            Some(format!("{}{index}.{rest}", self.layers.theirs))
        });
        in_layer
            .or_else(|| forth(self.queries, &path))
            .or_else(|| forth(self.text, &path))
            .unwrap_or(path)
    }

    /// Our path of their `key` on the query side.
    fn from(&self, key: &str) -> Option<String> {
        self.back(key, self.queries, &[self.attention, &QUERY_FEED_FORWARD])
    }

    /// Our path of their `key` on the text side.
    fn text_from(&self, key: &str) -> Option<String> {
        self.back(key, self.text, &[&TEXT_FEED_FORWARD])
    }

    fn back(&self, key: &str, outside: &[KeyRule], inside: &[&[KeyRule]]) -> Option<String> {
        let path = match key.strip_prefix(self.layers.theirs) {
            Some(rest) => {
                let (index, rest) = rest.split_once('.')?;
                let rest = inside.iter().find_map(|rules| back(rules, rest))?;
                format!("{}{index}.{rest}", self.layers.ours)
            }
            None => back(outside, key)?,
        };
        Some(burn_norm(path))
    }

    fn neck_to(&self, path: &str) -> String {
        forth(&[self.neck], path).unwrap_or_else(|| path.to_string())
    }

    fn neck_from(&self, key: &str) -> Option<String> {
        back(&[self.neck], key)
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

    use super::hugging_face::HUGGING_FACE;
    use super::lavis::LAVIS;
    use super::mmpretrain::MMPRETRAIN;
    use super::*;
    use crate::{QFormerConfig, QFormerTextConfig};

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
        for names in [HUGGING_FACE, LAVIS, MMPRETRAIN] {
            let mut seen = BTreeSet::new();
            for path in &all {
                let key = names.to(path);
                // All but the queries change: an unknown path would come back as it is.
                assert!(&key != path || path == "query_tokens", "{path}");
                assert!(seen.insert(key.clone()), "{key} has two paths");
                let (query, text) = (names.from(&key), names.text_from(&key));
                let (known, unknown) = match caption.contains(path) {
                    true => (query, text),
                    false => (text, query),
                };
                assert_eq!(known.as_ref(), Some(path), "{key}");
                assert_eq!(unknown, None, "{key}");
                // A norm may come with torch's names.
                assert_eq!(names.to(&torch_norm(path)), key);
            }
        }
    }

    #[test]
    fn the_neck_goes_there_and_back() {
        for (names, key) in [
            (HUGGING_FACE, "language_projection.bias"),
            (LAVIS, "opt_proj.bias"),
            (MMPRETRAIN, "vision_neck.fc.bias"),
        ] {
            assert_eq!(names.neck_to("projection.bias"), key);
            assert_eq!(names.neck_from(key).as_deref(), Some("projection.bias"));
            assert_eq!(names.neck_from("query_tokens"), None);
            assert_eq!(names.from(key), None);
            assert_eq!(names.text_from(key), None);
        }
    }
}
