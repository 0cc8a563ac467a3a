//! LAVIS's names: a `BertLMHeadModel` called `Qformer`, in the checkpoints of all BLIP-2 models.

use super::{
    ENCODER, KeyRule, NECK, NORM, Names, PROJECTIONS, QUERIES, SAME, TEXT_EMBEDDINGS, rule,
};

/// BERT's embeddings hold the norm there, which the queries pass too.
pub(super) const EMBEDDINGS_NORM: &str =
    "the norm stands in BERT's embeddings, which the queries pass too";

pub(super) const LAVIS: Names = Names {
    queries: &[
        rule("query_tokens", "query_tokens", QUERIES),
        rule(
            "layer_norm.",
            "Qformer.bert.embeddings.LayerNorm.",
            EMBEDDINGS_NORM,
        ),
    ],
    // Both by their whole names: the norm stands beside them.
    text: &[
        rule(
            "text_embeddings.word_embeddings.",
            "Qformer.bert.embeddings.word_embeddings.",
            TEXT_EMBEDDINGS,
        ),
        rule(
            "text_embeddings.position_embeddings.",
            "Qformer.bert.embeddings.position_embeddings.",
            TEXT_EMBEDDINGS,
        ),
    ],
    layers: rule("layers.", "Qformer.bert.encoder.layer.", ENCODER),
    attention: &BERT_ATTENTION,
    // The name in the models with OPT; the first stage has no neck.
    neck: rule("projection.", "opt_proj.", NECK),
};

/// BERT's own names, which LAVIS and mmpretrain kept: Hugging Face's BLIP-2 renamed `self`.
pub(super) const BERT_ATTENTION: [KeyRule; 10] = [
    rule("attention.query.", "attention.self.query.", PROJECTIONS),
    rule("attention.key.", "attention.self.key.", PROJECTIONS),
    rule("attention.value.", "attention.self.value.", PROJECTIONS),
    rule("attention.output.dense.", "attention.output.dense.", SAME),
    rule(
        "attention.output.layer_norm.",
        "attention.output.LayerNorm.",
        NORM,
    ),
    rule(
        "crossattention.query.",
        "crossattention.self.query.",
        PROJECTIONS,
    ),
    rule(
        "crossattention.key.",
        "crossattention.self.key.",
        PROJECTIONS,
    ),
    rule(
        "crossattention.value.",
        "crossattention.self.value.",
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

/// LAVIS's name of our `path` in a [`QFormer`](crate::QFormer). A norm's parameters may have Burn's
/// names or torch's.
pub fn to_lavis(path: &str) -> String {
    LAVIS.to(path)
}

/// Our path of LAVIS's `key`, or none if it is not part of the query side.
pub fn from_lavis(key: &str) -> Option<String> {
    LAVIS.from(key)
}

/// Our path of LAVIS's `key`, or none if it is not part of the text side. Two kinds of key below
/// `Qformer` belong to neither: the buffer `bert.embeddings.position_ids`, and the language-model
/// head `cls`.
pub fn text_from_lavis(key: &str) -> Option<String> {
    LAVIS.text_from(key)
}

/// LAVIS's name of our `path` in a [`VisionNeck`](crate::VisionNeck) before OPT.
pub fn neck_to_lavis(path: &str) -> String {
    LAVIS.neck_to(path)
}

/// Our path in a [`VisionNeck`](crate::VisionNeck) of LAVIS's `key`, or none if it is not part of
/// it.
pub fn neck_from_lavis(key: &str) -> Option<String> {
    LAVIS.neck_from(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (ours, theirs) in [
            ("query_tokens", "query_tokens"),
            ("layer_norm.beta", "Qformer.bert.embeddings.LayerNorm.bias"),
            (
                "layers.11.attention.key.weight",
                "Qformer.bert.encoder.layer.11.attention.self.key.weight",
            ),
            (
                "layers.11.attention.output.layer_norm.gamma",
                "Qformer.bert.encoder.layer.11.attention.output.LayerNorm.weight",
            ),
            (
                "layers.4.crossattention.query.bias",
                "Qformer.bert.encoder.layer.4.crossattention.self.query.bias",
            ),
            (
                "layers.4.crossattention.output.dense.weight",
                "Qformer.bert.encoder.layer.4.crossattention.output.dense.weight",
            ),
            (
                "layers.1.intermediate_query.weight",
                "Qformer.bert.encoder.layer.1.intermediate_query.dense.weight",
            ),
            (
                "layers.1.output_query.layer_norm.beta",
                "Qformer.bert.encoder.layer.1.output_query.LayerNorm.bias",
            ),
        ] {
            assert_eq!(to_lavis(ours), theirs);
            assert_eq!(from_lavis(theirs).as_deref(), Some(ours));
            assert_eq!(text_from_lavis(theirs), None);
        }
    }

    #[test]
    fn names_of_the_text_side_are_apart() {
        for (ours, theirs) in [
            (
                "text_embeddings.word_embeddings.weight",
                "Qformer.bert.embeddings.word_embeddings.weight",
            ),
            (
                "text_embeddings.position_embeddings.weight",
                "Qformer.bert.embeddings.position_embeddings.weight",
            ),
            (
                "layers.0.intermediate.weight",
                "Qformer.bert.encoder.layer.0.intermediate.dense.weight",
            ),
            (
                "layers.0.output.layer_norm.gamma",
                "Qformer.bert.encoder.layer.0.output.LayerNorm.weight",
            ),
        ] {
            assert_eq!(to_lavis(ours), theirs);
            assert_eq!(text_from_lavis(theirs).as_deref(), Some(ours));
            assert_eq!(from_lavis(theirs), None);
        }
    }

    #[test]
    fn keys_of_other_parts_have_no_path() {
        for key in [
            "Qformer.bert.embeddings.position_ids",
            "Qformer.cls.predictions.bias",
            "ln_vision.weight",
            "visual_encoder.blocks.0.norm1.weight",
            "qformer.encoder.layer.0.output.dense.weight",
        ] {
            assert_eq!(from_lavis(key), None, "{key}");
            assert_eq!(text_from_lavis(key), None, "{key}");
        }
    }
}
