//! Hugging Face's names of the weights.
//!
//! Burn calls a norm's weight and bias `gamma` and `beta`, and keeps a linear weight as `[in, out]`
//! where torch has `[out, in]`: whoever loads transposes it (burn-store's `PyTorchToBurnAdapter`
//! does both). No other weight changes its shape.

/// One line of a key map: a name starts with `ours` if and only if it starts with `theirs` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRule {
    /// How the name starts here.
    pub ours: &'static str,
    /// How it starts in a Hugging Face file.
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

/// Names outside the layers.
pub const QFORMER: [KeyRule; 2] = [
    rule(
        "query_tokens",
        "query_tokens",
        "the queries belong to the whole model there",
    ),
    rule(
        "layer_norm.",
        "qformer.layernorm.",
        "one spelling for all norms here",
    ),
];

/// Names of [`VisionNeck`](crate::VisionNeck).
pub const NECK: [KeyRule; 1] = [rule(
    "projection.",
    "language_projection.",
    "the module is the neck, which the assembled model names",
)];

/// Where layer N stands: `layers.N.` here.
const LAYERS: KeyRule = rule(
    "layers.",
    "qformer.encoder.layer.",
    "our layers are not inside an `encoder`",
);

const PROJECTIONS: &str = "query, key and value are a module of their own inside BERT's attention";
const NORM: &str = "one spelling for all norms here";

/// Names inside a layer.
pub const LAYER: [KeyRule; 13] = [
    rule(
        "attention.query.",
        "attention.attention.query.",
        PROJECTIONS,
    ),
    rule("attention.key.", "attention.attention.key.", PROJECTIONS),
    rule(
        "attention.value.",
        "attention.attention.value.",
        PROJECTIONS,
    ),
    rule(
        "attention.output.dense.",
        "attention.output.dense.",
        "the same",
    ),
    rule(
        "attention.output.layer_norm.",
        "attention.output.LayerNorm.",
        NORM,
    ),
    rule(
        "crossattention.query.",
        "crossattention.attention.query.",
        PROJECTIONS,
    ),
    rule(
        "crossattention.key.",
        "crossattention.attention.key.",
        PROJECTIONS,
    ),
    rule(
        "crossattention.value.",
        "crossattention.attention.value.",
        PROJECTIONS,
    ),
    rule(
        "crossattention.output.dense.",
        "crossattention.output.dense.",
        "the same",
    ),
    rule(
        "crossattention.output.layer_norm.",
        "crossattention.output.LayerNorm.",
        NORM,
    ),
    rule(
        "intermediate_query.",
        "intermediate_query.dense.",
        "our layer applies the activation, so the module is the linear layer alone",
    ),
    rule("output_query.dense.", "output_query.dense.", "the same"),
    rule("output_query.layer_norm.", "output_query.LayerNorm.", NORM),
];

/// Hugging Face's name of our `path` in a [`QFormer`](crate::QFormer). A norm's parameters may have
/// Burn's names or torch's.
pub fn to_hugging_face(path: &str) -> String {
    let path = &torch_norm(path);
    let in_layer = path.strip_prefix(LAYERS.ours).and_then(|rest| {
        let (index, rest) = rest.split_once('.')?;
        Some(format!("{}{index}.{}", LAYERS.theirs, forth(&LAYER, rest)?))
    });
    in_layer
        .or_else(|| forth(&QFORMER, path))
        .unwrap_or_else(|| path.clone())
}

/// Our path of Hugging Face's `key`, or none if it is not part of the query side: text has word
/// and position embeddings, and an `intermediate` and `output` of its own in each layer.
pub fn from_hugging_face(key: &str) -> Option<String> {
    let path = match key.strip_prefix(LAYERS.theirs) {
        Some(rest) => {
            let (index, rest) = rest.split_once('.')?;
            format!("{}{index}.{}", LAYERS.ours, back(&LAYER, rest)?)
        }
        None => back(&QFORMER, key)?,
    };
    Some(match path.rsplit_once('.') {
        Some((norm, "weight")) if norm.ends_with("layer_norm") => format!("{norm}.gamma"),
        Some((norm, "bias")) if norm.ends_with("layer_norm") => format!("{norm}.beta"),
        _ => path,
    })
}

/// Hugging Face's name of our `path` in a [`VisionNeck`](crate::VisionNeck).
pub fn neck_to_hugging_face(path: &str) -> String {
    forth(&NECK, path).unwrap_or_else(|| path.to_string())
}

/// Our path in a [`VisionNeck`](crate::VisionNeck) of Hugging Face's `key`, or none if it is not
/// part of it.
pub fn neck_from_hugging_face(key: &str) -> Option<String> {
    back(&NECK, key)
}

fn torch_norm(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((norm, "gamma")) => format!("{norm}.weight"),
        Some((norm, "beta")) => format!("{norm}.bias"),
        _ => path.to_string(),
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
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (ours, theirs) in [
            ("query_tokens", "query_tokens"),
            ("layer_norm.gamma", "qformer.layernorm.weight"),
            (
                "layers.0.attention.query.bias",
                "qformer.encoder.layer.0.attention.attention.query.bias",
            ),
            (
                "layers.10.crossattention.value.weight",
                "qformer.encoder.layer.10.crossattention.attention.value.weight",
            ),
            (
                "layers.2.crossattention.output.layer_norm.beta",
                "qformer.encoder.layer.2.crossattention.output.LayerNorm.bias",
            ),
            (
                "layers.1.intermediate_query.weight",
                "qformer.encoder.layer.1.intermediate_query.dense.weight",
            ),
            (
                "layers.1.output_query.dense.weight",
                "qformer.encoder.layer.1.output_query.dense.weight",
            ),
        ] {
            assert_eq!(to_hugging_face(ours), theirs);
            assert_eq!(from_hugging_face(theirs).as_deref(), Some(ours));
        }
        assert_eq!(
            to_hugging_face("layers.0.output_query.layer_norm.weight"),
            to_hugging_face("layers.0.output_query.layer_norm.gamma")
        );
        assert_eq!(
            neck_to_hugging_face("projection.bias"),
            "language_projection.bias"
        );
        assert_eq!(
            neck_from_hugging_face("language_projection.weight").as_deref(),
            Some("projection.weight")
        );
    }

    #[test]
    fn keys_of_the_text_side_and_of_other_parts_have_no_path() {
        for key in [
            "qformer.embeddings.word_embeddings.weight",
            "qformer.encoder.layer.3.intermediate.dense.weight",
            "qformer.encoder.layer.3.output.LayerNorm.weight",
            "qformer.encoder.layer.3.attention.query.weight",
            "vision_model.post_layernorm.weight",
        ] {
            assert_eq!(from_hugging_face(key), None, "{key}");
        }
        assert_eq!(neck_from_hugging_face("query_tokens"), None);
    }
}
