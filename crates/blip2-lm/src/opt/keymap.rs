//! Hugging Face's names of the weights (`OPTForCausalLM`).
//!
//! Names differ in two things only: Hugging Face puts all under `model.decoder`, and Burn calls a
//! norm's weight and bias `gamma` and `beta`. Burn keeps a linear weight as `[in, out]` where torch
//! has `[out, in]`: whoever loads transposes it.

const PREFIX: &str = "model.decoder.";

/// The prefix of a bare `OPTModel`, without the output layer.
const BARE_PREFIX: &str = "decoder.";

/// Hugging Face's key of the output layer. It is the token embedding again, so a file may have it
/// or not, and loading drops it.
pub const TIED_OUTPUT: &str = "lm_head.weight";

/// Hugging Face's name of our `path`.
pub fn to_hugging_face(path: &str) -> String {
    let renamed = match path.rsplit_once('.') {
        Some((module, "gamma")) => format!("{module}.weight"),
        Some((module, "beta")) => format!("{module}.bias"),
        _ => path.to_string(),
    };
    format!("{PREFIX}{renamed}")
}

/// Our path of Hugging Face's `key`, or none if it is not one of the decoder's weights.
pub fn from_hugging_face(key: &str) -> Option<String> {
    let path = key
        .strip_prefix(PREFIX)
        .or_else(|| key.strip_prefix(BARE_PREFIX))?;
    Some(match path.rsplit_once('.') {
        Some((norm, "weight")) if norm.ends_with("layer_norm") => format!("{norm}.gamma"),
        Some((norm, "bias")) if norm.ends_with("layer_norm") => format!("{norm}.beta"),
        _ => path.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (ours, theirs) in [
            ("embed_tokens.weight", "model.decoder.embed_tokens.weight"),
            ("project_in.weight", "model.decoder.project_in.weight"),
            (
                "final_layer_norm.gamma",
                "model.decoder.final_layer_norm.weight",
            ),
            (
                "layers.11.self_attn.out_proj.bias",
                "model.decoder.layers.11.self_attn.out_proj.bias",
            ),
            (
                "layers.3.self_attn_layer_norm.beta",
                "model.decoder.layers.3.self_attn_layer_norm.bias",
            ),
            ("layers.0.fc2.weight", "model.decoder.layers.0.fc2.weight"),
        ] {
            assert_eq!(to_hugging_face(ours), theirs);
            assert_eq!(from_hugging_face(theirs).as_deref(), Some(ours));
        }
        assert_eq!(
            from_hugging_face("decoder.layers.0.fc1.bias").as_deref(),
            Some("layers.0.fc1.bias")
        );
        assert_eq!(from_hugging_face(TIED_OUTPUT), None);
        assert_eq!(
            from_hugging_face("vision_model.post_layernorm.weight"),
            None
        );
    }
}
