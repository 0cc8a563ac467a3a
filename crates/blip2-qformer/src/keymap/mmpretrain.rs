//! mmpretrain's names: LAVIS's below `bert`, for its `Qformer` comes from there.

use super::lavis::{BERT_ATTENTION, EMBEDDINGS_NORM};
use super::{ENCODER, Names, QUERIES, TEXT_EMBEDDINGS, rule};

pub(super) const MMPRETRAIN: Names = Names {
    queries: &[
        rule("query_tokens", "query_tokens", QUERIES),
        rule(
            "layer_norm.",
            "multimodal_backbone.bert.embeddings.LayerNorm.",
            EMBEDDINGS_NORM,
        ),
    ],
    text: &[
        rule(
            "text_embeddings.word_embeddings.",
            "multimodal_backbone.bert.embeddings.word_embeddings.",
            TEXT_EMBEDDINGS,
        ),
        rule(
            "text_embeddings.position_embeddings.",
            "multimodal_backbone.bert.embeddings.position_embeddings.",
            TEXT_EMBEDDINGS,
        ),
    ],
    layers: rule(
        "layers.",
        "multimodal_backbone.bert.encoder.layer.",
        ENCODER,
    ),
    attention: &BERT_ATTENTION,
    neck: rule(
        "projection.",
        "vision_neck.fc.",
        "the neck is a linear classification head there",
    ),
};

/// mmpretrain's name of our `path` in a [`QFormer`](crate::QFormer). A norm's parameters may have
/// Burn's names or torch's.
pub fn to_mmpretrain(path: &str) -> String {
    MMPRETRAIN.to(path)
}

/// Our path of mmpretrain's `key`, or none if it is not part of the query side.
pub fn from_mmpretrain(key: &str) -> Option<String> {
    MMPRETRAIN.from(key)
}

/// Our path of mmpretrain's `key`, or none if it is not part of the text side. As in LAVIS, the
/// buffer `bert.embeddings.position_ids` and the head `cls` below `multimodal_backbone` belong to
/// neither.
pub fn text_from_mmpretrain(key: &str) -> Option<String> {
    MMPRETRAIN.text_from(key)
}

/// mmpretrain's name of our `path` in a [`VisionNeck`](crate::VisionNeck).
pub fn neck_to_mmpretrain(path: &str) -> String {
    MMPRETRAIN.neck_to(path)
}

/// Our path in a [`VisionNeck`](crate::VisionNeck) of mmpretrain's `key`, or none if it is not part
/// of it.
pub fn neck_from_mmpretrain(key: &str) -> Option<String> {
    MMPRETRAIN.neck_from(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (ours, theirs) in [
            ("query_tokens", "query_tokens"),
            (
                "layer_norm.gamma",
                "multimodal_backbone.bert.embeddings.LayerNorm.weight",
            ),
            (
                "layers.7.attention.value.bias",
                "multimodal_backbone.bert.encoder.layer.7.attention.self.value.bias",
            ),
            (
                "layers.8.output_query.dense.weight",
                "multimodal_backbone.bert.encoder.layer.8.output_query.dense.weight",
            ),
        ] {
            assert_eq!(to_mmpretrain(ours), theirs);
            assert_eq!(from_mmpretrain(theirs).as_deref(), Some(ours));
            assert_eq!(text_from_mmpretrain(theirs), None);
        }
        for (ours, theirs) in [
            (
                "text_embeddings.word_embeddings.weight",
                "multimodal_backbone.bert.embeddings.word_embeddings.weight",
            ),
            (
                "layers.8.output.dense.weight",
                "multimodal_backbone.bert.encoder.layer.8.output.dense.weight",
            ),
        ] {
            assert_eq!(to_mmpretrain(ours), theirs);
            assert_eq!(text_from_mmpretrain(theirs).as_deref(), Some(ours));
            assert_eq!(from_mmpretrain(theirs), None);
        }
    }

    #[test]
    fn keys_of_other_parts_have_no_path() {
        for key in [
            "multimodal_backbone.bert.embeddings.position_ids",
            "multimodal_backbone.cls.predictions.bias",
            "ln_vision_backbone.weight",
            "text_backbone.model.decoder.embed_tokens.weight",
        ] {
            assert_eq!(from_mmpretrain(key), None, "{key}");
            assert_eq!(text_from_mmpretrain(key), None, "{key}");
        }
    }
}
