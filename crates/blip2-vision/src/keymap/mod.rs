//! What other projects call the weights.
//!
//! Burn calls a norm's weight and bias `gamma` and `beta`, and keeps a linear weight as `[in, out]`
//! where torch has `[out, in]`: whoever loads transposes it. Two more things differ: some projects
//! keep query, key and value apart where we have one projection (a [`Key`] then names one third of
//! ours), and CLIP has no leading dimensions on class token and positions.

mod tables;

use self::tables::Table;

/// A project's way of naming the weights of an image encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// transformers' `Blip2VisionModel`, inside a BLIP-2 checkpoint or alone.
    Blip2,
    /// transformers' `CLIPVisionModel`.
    Clip,
    /// OpenAI's CLIP, which LAVIS's `clip_vit` keeps.
    OpenAiClip,
    /// LAVIS's `eva_vit`, after timm. There is no bias on the key.
    Eva,
    /// mmpretrain's `BEiTViT`. There is no bias on the key.
    Mmpretrain,
}

/// A tensor's key in a foreign file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Which third of our tensor it is, along torch's first dimension: 0 query, 1 key, 2 value.
    /// None is all of it.
    pub third: Option<usize>,
}

/// Our tensor that a foreign key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Our path.
    pub path: String,
    /// Which third of it, as in [`Key`].
    pub third: Option<usize>,
}

/// Which part of a fused query/key/value bias a project leaves out, because it is always zero.
///
/// A bias on the key adds the same to every score of a query, which the softmax takes away again.
pub const KEY_THIRD: usize = 1;

impl Names {
    /// Whether the key's bias is left out; it is zero then.
    pub fn has_no_key_bias(self) -> bool {
        matches!(self, Self::Eva | Self::Mmpretrain)
    }

    /// The keys that make up our `path`. A norm's parameters may have Burn's names or torch's.
    /// A path that no rule names keeps its name.
    pub fn keys(self, path: &str) -> Vec<Key> {
        let path = match path.rsplit_once('.') {
            Some((norm, "gamma")) => format!("{norm}.weight"),
            Some((norm, "beta")) => format!("{norm}.bias"),
            _ => path.to_string(),
        };
        let table = self.table();
        let keys = match path
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split_once('.'))
        {
            Some((index, rest)) => {
                let prefix = format!("{}{index}.", table.blocks);
                foreign(table.inside, rest, &prefix)
            }
            None => foreign(table.outside, &path, ""),
        };
        if keys.is_empty() {
            let third = None;
            return vec![Key { name: path, third }];
        }
        keys
    }

    /// Our tensor of a foreign `key`, or none if the key is not part of an image encoder as BLIP-2
    /// uses it: a final norm is not.
    pub fn locate(self, key: &str) -> Option<Place> {
        let table = self.table();
        let Place { path, third } = match key.strip_prefix(table.blocks) {
            Some(rest) => {
                let (index, rest) = rest.split_once('.')?;
                index.parse::<usize>().ok()?;
                ours(table.inside, rest, &format!("blocks.{index}."))?
            }
            None => ours(table.outside, key, "")?,
        };
        let path = match path.rsplit_once('.') {
            Some((norm, "weight")) if is_norm(norm) => format!("{norm}.gamma"),
            Some((norm, "bias")) if is_norm(norm) => format!("{norm}.beta"),
            _ => path,
        };
        Some(Place { path, third })
    }

    fn table(self) -> &'static Table {
        match self {
            Self::Blip2 => &tables::BLIP2,
            Self::Clip => &tables::CLIP,
            Self::OpenAiClip => &tables::OPENAI_CLIP,
            Self::Eva => &tables::EVA,
            Self::Mmpretrain => &tables::MMPRETRAIN,
        }
    }
}

fn foreign(rules: &[tables::Rule], path: &str, prefix: &str) -> Vec<Key> {
    rules
        .iter()
        .filter(|rule| !rule.read_only)
        .filter_map(|rule| {
            let rest = path.strip_prefix(rule.ours)?;
            let (name, third) = (format!("{prefix}{}{rest}", rule.theirs), rule.third);
            Some(Key { name, third })
        })
        .collect()
}

fn ours(rules: &[tables::Rule], key: &str, prefix: &str) -> Option<Place> {
    rules.iter().find_map(|rule| {
        let rest = key.strip_prefix(rule.theirs)?;
        // A rule for one tensor is no rule for another that starts alike.
        if !rule.theirs.ends_with('.') && !rest.is_empty() {
            return None;
        }
        let (path, third) = (format!("{prefix}{}{rest}", rule.ours), rule.third);
        Some(Place { path, third })
    })
}

fn is_norm(module: &str) -> bool {
    ["pre_layernorm", "layer_norm1", "layer_norm2"]
        .iter()
        .any(|norm| module.ends_with(norm))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Names; 5] = [
        Names::Blip2,
        Names::Clip,
        Names::OpenAiClip,
        Names::Eva,
        Names::Mmpretrain,
    ];

    const PATHS: [&str; 16] = [
        "patch_embed.projection.weight",
        "patch_embed.projection.bias",
        "class_token",
        "position_embedding",
        "blocks.3.layer_norm1.gamma",
        "blocks.3.layer_norm1.beta",
        "blocks.38.layer_norm2.gamma",
        "blocks.3.self_attn.qkv.weight",
        "blocks.3.self_attn.qkv.bias",
        "blocks.3.self_attn.projection.weight",
        "blocks.3.self_attn.projection.bias",
        "blocks.3.mlp.fc1.weight",
        "blocks.3.mlp.fc1.bias",
        "blocks.3.mlp.fc2.weight",
        "blocks.3.mlp.fc2.bias",
        "blocks.0.layer_norm2.beta",
    ];

    #[test]
    fn names_go_there_and_back() {
        for names in ALL {
            for path in PATHS {
                for Key { name, third } in names.keys(path) {
                    let path = path.to_string();
                    assert_eq!(
                        names.locate(&name),
                        Some(Place { path, third }),
                        "{names:?}"
                    );
                }
            }
        }
        for names in [Names::Clip, Names::OpenAiClip] {
            let keys = names.keys("pre_layernorm.gamma");
            assert_eq!(
                names.locate(&keys[0].name).unwrap().path,
                "pre_layernorm.gamma"
            );
        }
    }

    #[test]
    fn keys_are_those_of_the_projects() {
        let names = |names: Names, path| -> Vec<String> {
            names.keys(path).into_iter().map(|key| key.name).collect()
        };
        let bias = "blocks.7.self_attn.qkv.bias";
        assert_eq!(
            names(Names::Blip2, bias),
            ["vision_model.encoder.layers.7.self_attn.qkv.bias"]
        );
        assert_eq!(
            names(Names::Clip, bias),
            ["q", "k", "v"]
                .map(|part| format!("vision_model.encoder.layers.7.self_attn.{part}_proj.bias"))
        );
        assert_eq!(
            names(Names::OpenAiClip, bias),
            ["transformer.resblocks.7.attn.in_proj_bias"]
        );
        assert_eq!(
            names(Names::Eva, bias),
            ["blocks.7.attn.q_bias", "blocks.7.attn.v_bias"]
        );
        assert_eq!(
            names(Names::Mmpretrain, "blocks.7.mlp.fc2.weight"),
            ["layers.7.ffn.layers.1.weight"]
        );
        assert_eq!(
            names(Names::Clip, "position_embedding"),
            ["vision_model.embeddings.position_embedding.weight"]
        );
        assert_eq!(
            names(Names::Clip, "pre_layernorm.weight"),
            ["vision_model.pre_layrnorm.weight"]
        );
    }

    #[test]
    fn keys_of_other_parts_have_no_place() {
        for (names, key) in [
            (Names::Blip2, "vision_model.post_layernorm.weight"),
            (Names::Blip2, "language_model.lm_head.weight"),
            (Names::Blip2, "vision_model.encoder.layers.x.mlp.fc1.weight"),
            (Names::Clip, "text_model.encoder.layers.0.mlp.fc1.weight"),
            (Names::Clip, "vision_model.embeddings.position_ids"),
            (Names::OpenAiClip, "ln_post.weight"),
            (Names::Eva, "norm.weight"),
            (Names::Eva, "cls_token_2"),
            (Names::Mmpretrain, "ln1.weight"),
        ] {
            assert_eq!(names.locate(key), None, "{key}");
        }
    }
}
