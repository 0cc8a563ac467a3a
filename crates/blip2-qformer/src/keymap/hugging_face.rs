//! Hugging Face's names: `Blip2ForConditionalGeneration`, and with text
//! `Blip2ForImageTextRetrieval`.

use super::{
    ENCODER, KeyRule, NECK, NORM, Names, PROJECTIONS, QUERIES, SAME, TEXT_EMBEDDINGS, rule,
};

pub(super) const HUGGING_FACE: Names = Names {
    queries: &[
        rule("query_tokens", "query_tokens", QUERIES),
        rule("layer_norm.", "qformer.layernorm.", NORM),
    ],
    text: &[rule("text_embeddings.", "embeddings.", TEXT_EMBEDDINGS)],
    layers: rule("layers.", "qformer.encoder.layer.", ENCODER),
    attention: &ATTENTION,
    neck: rule("projection.", "language_projection.", NECK),
};

const ATTENTION: [KeyRule; 10] = [
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
    rule("attention.output.dense.", "attention.output.dense.", SAME),
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
        SAME,
    ),
    rule(
        "crossattention.output.layer_norm.",
        "crossattention.output.LayerNorm.",
        NORM,
    ),
];

/// Hugging Face's name of our `path` in a [`QFormer`](crate::QFormer). A norm's parameters may have
/// Burn's names or torch's.
pub fn to_hugging_face(path: &str) -> String {
    HUGGING_FACE.to(path)
}

/// Our path of Hugging Face's `key`, or none if it is not part of the query side: text has word
/// and position embeddings, and an `intermediate` and `output` of its own in each layer.
pub fn from_hugging_face(key: &str) -> Option<String> {
    HUGGING_FACE.from(key)
}

/// Our path of Hugging Face's `key`, or none if it is not part of the text side.
pub fn text_from_hugging_face(key: &str) -> Option<String> {
    HUGGING_FACE.text_from(key)
}

/// Hugging Face's name of our `path` in a [`VisionNeck`](crate::VisionNeck).
pub fn neck_to_hugging_face(path: &str) -> String {
    HUGGING_FACE.neck_to(path)
}

/// Our path in a [`VisionNeck`](crate::VisionNeck) of Hugging Face's `key`, or none if it is not
/// part of it.
pub fn neck_from_hugging_face(key: &str) -> Option<String> {
    HUGGING_FACE.neck_from(key)
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
            assert_eq!(text_from_hugging_face(theirs), None);
        }
    }

    #[test]
    fn names_of_the_text_side_are_apart() {
        for (ours, theirs) in [
            (
                "text_embeddings.word_embeddings.weight",
                "embeddings.word_embeddings.weight",
            ),
            (
                "text_embeddings.position_embeddings.weight",
                "embeddings.position_embeddings.weight",
            ),
            (
                "layers.3.intermediate.bias",
                "qformer.encoder.layer.3.intermediate.dense.bias",
            ),
            (
                "layers.3.output.dense.weight",
                "qformer.encoder.layer.3.output.dense.weight",
            ),
            (
                "layers.3.output.layer_norm.gamma",
                "qformer.encoder.layer.3.output.LayerNorm.weight",
            ),
        ] {
            assert_eq!(to_hugging_face(ours), theirs);
            assert_eq!(text_from_hugging_face(theirs).as_deref(), Some(ours));
            assert_eq!(from_hugging_face(theirs), None);
        }
    }

    #[test]
    fn keys_of_other_parts_have_no_path() {
        for key in [
            "qformer.encoder.layer.3.attention.query.weight",
            "vision_model.post_layernorm.weight",
            "vision_model.embeddings.class_embedding",
            "text_projection.weight",
        ] {
            assert_eq!(from_hugging_face(key), None, "{key}");
            assert_eq!(text_from_hugging_face(key), None, "{key}");
        }
    }
}
