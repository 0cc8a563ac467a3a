//! Hugging Face's names of the weights.
//!
//! Ours differ at three places only: the embeddings are not grouped under `embeddings`, the
//! encoder's layers are not under `encoder`, and the patch projection has its bias and weight in a
//! `projection`, since Burn's convolution owns both.

/// (ours, Hugging Face's): a name starts with the left side if and only if it starts with the
/// right side there.
const PREFIXES: [(&str, &str); 5] = [
    (
        "patch_embed.projection.",
        "vision_model.embeddings.patch_embedding.",
    ),
    ("class_embedding", "vision_model.embeddings.class_embedding"),
    (
        "position_embedding",
        "vision_model.embeddings.position_embedding",
    ),
    ("pre_layernorm.", "vision_model.pre_layernorm."),
    ("layers.", "vision_model.encoder.layers."),
];

/// Hugging Face's name of our `name`.
pub fn to_hugging_face(name: &str) -> String {
    for (ours, theirs) in PREFIXES {
        if let Some(rest) = name.strip_prefix(ours) {
            return format!("{theirs}{rest}");
        }
    }
    name.to_string()
}

/// Our name of Hugging Face's `key`, or none if it is not part of an image encoder.
pub fn from_hugging_face(key: &str) -> Option<String> {
    PREFIXES
        .iter()
        .find_map(|(ours, theirs)| Some(format!("{ours}{}", key.strip_prefix(theirs)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (ours, theirs) in [
            ("class_embedding", "vision_model.embeddings.class_embedding"),
            (
                "layers.3.self_attn.qkv.weight",
                "vision_model.encoder.layers.3.self_attn.qkv.weight",
            ),
            (
                "patch_embed.projection.bias",
                "vision_model.embeddings.patch_embedding.bias",
            ),
        ] {
            assert_eq!(to_hugging_face(ours), theirs);
            assert_eq!(from_hugging_face(theirs).as_deref(), Some(ours));
        }
        assert_eq!(from_hugging_face("language_model.lm_head.weight"), None);
    }
}
