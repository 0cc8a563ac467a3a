//! LAVIS's and mmpretrain's names of the Q-Former, which differ from Hugging Face's in a prefix and
//! in BERT's name for the projections of attention.

use blip2_qformer::keymap;

const BERT: &str = "Qformer.bert.";
const MM_BERT: &str = "multimodal_backbone.bert.";

/// The name of our `path`.
pub fn to_lavis(path: &str) -> String {
    foreign(path, BERT)
}

/// Our path of LAVIS's `key`.
pub fn from_lavis(key: &str) -> Option<String> {
    ours(key, BERT)
}

/// As [`to_lavis`], for mmpretrain.
pub fn to_mmpretrain(path: &str) -> String {
    foreign(path, MM_BERT)
}

/// As [`from_lavis`], for mmpretrain.
pub fn from_mmpretrain(key: &str) -> Option<String> {
    ours(key, MM_BERT)
}

/// Whether `key` is a weight of the text side, by LAVIS's names.
pub fn is_text_of_lavis(key: &str) -> bool {
    is_text(key, BERT)
}

/// Whether `key` is a weight of the text side, by mmpretrain's names.
pub fn is_text_of_mmpretrain(key: &str) -> bool {
    is_text(key, MM_BERT)
}

/// Whether `key` is a weight of the text side, by Hugging Face's names.
pub fn is_text_of_hugging_face(key: &str) -> bool {
    let key = key.strip_prefix("qformer.").unwrap_or(key);
    key.starts_with("embeddings.") || is_text_layer(key)
}

fn foreign(path: &str, bert: &str) -> String {
    let key = keymap::to_hugging_face(path);
    let Some(rest) = key.strip_prefix("qformer.") else {
        return key;
    };
    let rest = match rest.strip_prefix("layernorm.") {
        Some(parameter) => format!("embeddings.LayerNorm.{parameter}"),
        None => rest.replace("attention.attention.", "attention.self."),
    };
    format!("{bert}{rest}")
}

fn ours(key: &str, bert: &str) -> Option<String> {
    let Some(rest) = key.strip_prefix(bert) else {
        return (key == "query_tokens").then(|| keymap::from_hugging_face(key))?;
    };
    let rest = match rest.strip_prefix("embeddings.LayerNorm.") {
        Some(parameter) => format!("layernorm.{parameter}"),
        None => rest.replace("attention.self.", "attention.attention."),
    };
    keymap::from_hugging_face(&format!("qformer.{rest}"))
}

fn is_text(key: &str, bert: &str) -> bool {
    key.strip_prefix(bert)
        .is_some_and(|key| key.starts_with("embeddings.") || is_text_layer(key))
}

/// Text has a feed-forward of its own in each layer.
fn is_text_layer(key: &str) -> bool {
    let inside = || key.strip_prefix("encoder.layer.")?.split_once('.');
    inside()
        .is_some_and(|(_, rest)| rest.starts_with("intermediate.") || rest.starts_with("output."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (ours, lavis) in [
            ("query_tokens", "query_tokens"),
            (
                "layer_norm.gamma",
                "Qformer.bert.embeddings.LayerNorm.weight",
            ),
            (
                "layers.0.attention.query.bias",
                "Qformer.bert.encoder.layer.0.attention.self.query.bias",
            ),
            (
                "layers.10.crossattention.value.weight",
                "Qformer.bert.encoder.layer.10.crossattention.self.value.weight",
            ),
            (
                "layers.2.crossattention.output.layer_norm.beta",
                "Qformer.bert.encoder.layer.2.crossattention.output.LayerNorm.bias",
            ),
            (
                "layers.1.intermediate_query.weight",
                "Qformer.bert.encoder.layer.1.intermediate_query.dense.weight",
            ),
            (
                "layers.1.output_query.layer_norm.gamma",
                "Qformer.bert.encoder.layer.1.output_query.LayerNorm.weight",
            ),
        ] {
            assert_eq!(to_lavis(ours), lavis);
            assert_eq!(from_lavis(lavis).as_deref(), Some(ours));
            assert!(
                !is_text_of_lavis(lavis) || lavis.contains("LayerNorm"),
                "{lavis}"
            );
            let mmpretrain = lavis.replace("Qformer.", "multimodal_backbone.");
            assert_eq!(to_mmpretrain(ours), mmpretrain);
            assert_eq!(from_mmpretrain(&mmpretrain).as_deref(), Some(ours));
        }
    }

    #[test]
    fn the_text_side_is_known_as_such() {
        for key in [
            "Qformer.bert.embeddings.word_embeddings.weight",
            "Qformer.bert.encoder.layer.3.intermediate.dense.weight",
            "Qformer.bert.encoder.layer.3.output.LayerNorm.weight",
        ] {
            assert!(is_text_of_lavis(key) && from_lavis(key).is_none(), "{key}");
            let key = key.replace("Qformer.bert.", "qformer.");
            assert!(is_text_of_hugging_face(&key), "{key}");
        }
        assert!(!is_text_of_lavis(
            "Qformer.bert.encoder.layer.3.output_query.dense.weight"
        ));
        assert!(!is_text_of_lavis("opt_proj.weight"));
    }
}
