//! Hugging Face's names of the weights.
//!
//! Below a block, names are the same. Burn calls a norm's weight and bias `gamma` and `beta`, and
//! keeps a linear weight as `[in, out]` where torch has `[out, in]`: whoever loads transposes it
//! (burn-store's `PyTorchToBurnAdapter` does both). No other weight changes its shape: the patch
//! projection is a convolution's on both sides.

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

/// Names of `Blip2VisionModel` inside a BLIP-2 checkpoint, and of its CLIP twin where only CLIP has
/// the weight.
pub const HUGGING_FACE: [KeyRule; 5] = [
    KeyRule {
        ours: "patch_embed.projection.",
        theirs: "vision_model.embeddings.patch_embedding.",
        reason: "we keep the image size beside the convolution",
    },
    KeyRule {
        ours: "class_token",
        theirs: "vision_model.embeddings.class_embedding",
        reason: "LAVIS's and timm's word (`cls_token`)",
    },
    KeyRule {
        ours: "position_embedding",
        theirs: "vision_model.embeddings.position_embedding",
        reason: "our embeddings are not a module of their own",
    },
    KeyRule {
        ours: "pre_layernorm.",
        theirs: "vision_model.pre_layrnorm.",
        reason: "CLIP only; the key has been misspelt since its first release",
    },
    KeyRule {
        ours: "blocks.",
        theirs: "vision_model.encoder.layers.",
        reason: "our blocks are not inside an `encoder`",
    },
];

/// Hugging Face's name of our `path`. A norm's parameters may have Burn's names or torch's.
pub fn to_hugging_face(path: &str) -> String {
    let path = match path.rsplit_once('.') {
        Some((norm, "gamma")) => format!("{norm}.weight"),
        Some((norm, "beta")) => format!("{norm}.bias"),
        _ => path.to_string(),
    };
    for rule in HUGGING_FACE {
        if let Some(rest) = path.strip_prefix(rule.ours) {
            return format!("{}{rest}", rule.theirs);
        }
    }
    path
}

/// Our path of Hugging Face's `key`, or none if it is not part of an image encoder: its
/// `post_layernorm` belongs to the assembled model.
pub fn from_hugging_face(key: &str) -> Option<String> {
    let path = HUGGING_FACE
        .iter()
        .find_map(|rule| Some(format!("{}{}", rule.ours, key.strip_prefix(rule.theirs)?)))?;
    Some(match path.rsplit_once('.') {
        Some((norm, "weight")) if is_norm(norm) => format!("{norm}.gamma"),
        Some((norm, "bias")) if is_norm(norm) => format!("{norm}.beta"),
        _ => path,
    })
}

fn is_norm(module: &str) -> bool {
    ["pre_layernorm", "layer_norm1", "layer_norm2"]
        .iter()
        .any(|norm| module.ends_with(norm))
}

/// The keys of transformers' `CLIPVisionModel` that make our `path`: their tensors, joined along
/// the first dimension in torch's layout, then given our number of dimensions. CLIP projects
/// query, key and value apart, and has no leading dimensions on class token and positions.
pub fn to_clip(path: &str) -> Vec<String> {
    let key = to_hugging_face(path);
    if let Some((attention, parameter)) = key.split_once(".qkv.") {
        return ["q_proj", "k_proj", "v_proj"]
            .map(|part| format!("{attention}.{part}.{parameter}"))
            .into();
    }
    let key = key.replace(".self_attn.projection.", ".self_attn.out_proj.");
    if key.ends_with(".position_embedding") {
        return vec![format!("{key}.weight")];
    }
    vec![key]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (ours, theirs) in [
            ("class_token", "vision_model.embeddings.class_embedding"),
            (
                "position_embedding",
                "vision_model.embeddings.position_embedding",
            ),
            (
                "patch_embed.projection.bias",
                "vision_model.embeddings.patch_embedding.bias",
            ),
            (
                "blocks.3.self_attn.qkv.weight",
                "vision_model.encoder.layers.3.self_attn.qkv.weight",
            ),
            (
                "blocks.38.layer_norm2.gamma",
                "vision_model.encoder.layers.38.layer_norm2.weight",
            ),
            ("pre_layernorm.beta", "vision_model.pre_layrnorm.bias"),
        ] {
            assert_eq!(to_hugging_face(ours), theirs);
            assert_eq!(from_hugging_face(theirs).as_deref(), Some(ours));
        }
        assert_eq!(
            to_hugging_face("blocks.0.layer_norm1.weight"),
            to_hugging_face("blocks.0.layer_norm1.gamma")
        );
        assert_eq!(
            from_hugging_face("vision_model.post_layernorm.weight"),
            None
        );
        assert_eq!(from_hugging_face("language_model.lm_head.weight"), None);
    }
}
