//! The tables of names, a line for each that differs.

/// One line: our name starts with `ours` if and only if theirs starts with `theirs` there.
pub(super) struct Rule {
    pub ours: &'static str,
    pub theirs: &'static str,
    /// Which third of our tensor theirs is.
    pub third: Option<usize>,
    /// Met in files, but not what the project writes.
    pub read_only: bool,
}

/// The names of a project.
pub(super) struct Table {
    /// What stands before a block's index.
    pub blocks: &'static str,
    /// Names outside the blocks.
    pub outside: &'static [Rule],
    /// Names inside a block.
    pub inside: &'static [Rule],
}

const fn rule(ours: &'static str, theirs: &'static str) -> Rule {
    Rule {
        ours,
        theirs,
        third: None,
        read_only: false,
    }
}

/// A third of our tensor: query, key or value.
const fn third(ours: &'static str, theirs: &'static str, index: usize) -> Rule {
    Rule {
        third: Some(index),
        ..rule(ours, theirs)
    }
}

const fn read_only(ours: &'static str, theirs: &'static str) -> Rule {
    Rule {
        read_only: true,
        ..rule(ours, theirs)
    }
}

// Our embeddings are no module of their own, our blocks not inside an `encoder`; the image size
// stands beside the patch convolution.
const PATCHES: Rule = rule(
    "patch_embed.projection.",
    "vision_model.embeddings.patch_embedding.",
);
const CLASS: Rule = rule("class_token", "vision_model.embeddings.class_embedding");
const BLOCKS: &str = "vision_model.encoder.layers.";

pub(super) static BLIP2: Table = Table {
    blocks: BLOCKS,
    outside: &[
        PATCHES,
        CLASS,
        rule(
            "position_embedding",
            "vision_model.embeddings.position_embedding",
        ),
        // Not in a BLIP-2 of transformers, which has no CLIP; our own exports of a CLIP tower have
        // it by CLIP's name.
        rule("pre_layernorm.", "vision_model.pre_layrnorm."),
    ],
    inside: &[
        rule("layer_norm1.", "layer_norm1."),
        rule("layer_norm2.", "layer_norm2."),
        rule("self_attn.qkv.", "self_attn.qkv."),
        rule("self_attn.projection.", "self_attn.projection."),
        rule("mlp.", "mlp."),
    ],
};

pub(super) static CLIP: Table = Table {
    blocks: BLOCKS,
    outside: &[
        PATCHES,
        CLASS,
        rule(
            "position_embedding",
            "vision_model.embeddings.position_embedding.weight",
        ),
        // Misspelt since CLIP's first release there.
        rule("pre_layernorm.", "vision_model.pre_layrnorm."),
    ],
    inside: &[
        rule("layer_norm1.", "layer_norm1."),
        rule("layer_norm2.", "layer_norm2."),
        third("self_attn.qkv.", "self_attn.q_proj.", 0),
        third("self_attn.qkv.", "self_attn.k_proj.", 1),
        third("self_attn.qkv.", "self_attn.v_proj.", 2),
        rule("self_attn.projection.", "self_attn.out_proj."),
        rule("mlp.", "mlp."),
    ],
};

pub(super) static OPENAI_CLIP: Table = Table {
    blocks: "transformer.resblocks.",
    outside: &[
        rule("patch_embed.projection.", "conv1."),
        rule("class_token", "class_embedding"),
        rule("position_embedding", "positional_embedding"),
        rule("pre_layernorm.", "ln_pre."),
    ],
    inside: &[
        rule("layer_norm1.", "ln_1."),
        rule("layer_norm2.", "ln_2."),
        // torch's `MultiheadAttention` fuses, too, but not as a module.
        rule("self_attn.qkv.weight", "attn.in_proj_weight"),
        rule("self_attn.qkv.bias", "attn.in_proj_bias"),
        rule("self_attn.projection.", "attn.out_proj."),
        rule("mlp.fc1.", "mlp.c_fc."),
        rule("mlp.fc2.", "mlp.c_proj."),
    ],
};

pub(super) static EVA: Table = Table {
    blocks: "blocks.",
    outside: &[
        rule("patch_embed.projection.", "patch_embed.proj."),
        rule("class_token", "cls_token"),
        rule("position_embedding", "pos_embed"),
    ],
    inside: &[
        rule("layer_norm1.", "norm1."),
        rule("layer_norm2.", "norm2."),
        rule("self_attn.qkv.weight", "attn.qkv.weight"),
        third("self_attn.qkv.bias", "attn.q_bias", 0),
        third("self_attn.qkv.bias", "attn.v_bias", 2),
        // timm's plain vision transformers.
        read_only("self_attn.qkv.bias", "attn.qkv.bias"),
        rule("self_attn.projection.", "attn.proj."),
        rule("mlp.", "mlp."),
    ],
};

pub(super) static MMPRETRAIN: Table = Table {
    blocks: "layers.",
    outside: &[
        rule("patch_embed.projection.", "patch_embed.projection."),
        rule("class_token", "cls_token"),
        rule("position_embedding", "pos_embed"),
    ],
    inside: &[
        rule("layer_norm1.", "ln1."),
        rule("layer_norm2.", "ln2."),
        rule("self_attn.qkv.weight", "attn.qkv.weight"),
        third("self_attn.qkv.bias", "attn.q_bias", 0),
        third("self_attn.qkv.bias", "attn.v_bias", 2),
        read_only("self_attn.qkv.bias", "attn.qkv.bias"),
        rule("self_attn.projection.", "attn.proj."),
        // mmcv's feed-forward: a sequence of [linear, activation, dropout], then linear.
        rule("mlp.fc1.", "ffn.layers.0.0."),
        rule("mlp.fc2.", "ffn.layers.1."),
    ],
};
