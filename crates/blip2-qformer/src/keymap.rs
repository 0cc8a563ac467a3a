//! Hugging Face's names of the weights.

/// (ours, Hugging Face's), replaced from the top; the order matters where one contains another.
const PARTS: [(&str, &str); 5] = [
    // BERT keeps the three projections in a module of their own inside `attention`.
    ("attention.query", "attention.attention.query"),
    ("attention.key", "attention.attention.key"),
    ("attention.value", "attention.attention.value"),
    // The query side's first linear layer is called `dense` there.
    ("intermediate_query.", "intermediate_query.dense."),
    (".layer_norm.", ".LayerNorm."),
];

/// Hugging Face's name of our `name`.
pub fn to_hugging_face(name: &str) -> String {
    if name == "query_tokens" {
        return name.to_string();
    }
    if let Some(rest) = name.strip_prefix("layer_norm.") {
        return format!("qformer.layernorm.{rest}");
    }
    let name = PARTS.iter().fold(name.to_string(), |name, (ours, theirs)| {
        name.replace(ours, theirs)
    });
    name.replacen("layers.", "qformer.encoder.layer.", 1)
}

/// Our name of Hugging Face's `key`, or none if it is not part of the query side.
pub fn from_hugging_face(key: &str) -> Option<String> {
    if key == "query_tokens" {
        return Some(key.to_string());
    }
    let key = key.strip_prefix("qformer.")?;
    if let Some(rest) = key.strip_prefix("layernorm.") {
        return Some(format!("layer_norm.{rest}"));
    }
    let key = format!("layers.{}", key.strip_prefix("encoder.layer.")?);
    Some(
        PARTS
            .iter()
            .rev()
            .fold(key, |key, (ours, theirs)| key.replace(theirs, ours)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (ours, theirs) in [
            ("query_tokens", "query_tokens"),
            ("layer_norm.weight", "qformer.layernorm.weight"),
            (
                "layers.0.attention.query.bias",
                "qformer.encoder.layer.0.attention.attention.query.bias",
            ),
            (
                "layers.2.crossattention.value.weight",
                "qformer.encoder.layer.2.crossattention.attention.value.weight",
            ),
            (
                "layers.2.crossattention.output.layer_norm.bias",
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
            from_hugging_face("qformer.embeddings.word_embeddings.weight"),
            None
        );
    }
}
