//! The image encoders of the paper.

use crate::{Activation, VisionConfig};

/// EVA-ViT-g/14 as BLIP-2 uses it: 39 of its 40 blocks, no final norm.
///
/// Reference: LAVIS `create_eva_vit_g`; `Blip2VisionConfig` of transformers has the same sizes.
/// LAVIS's function skips paths with a rate of 0.4 by default, but every BLIP-2 recipe sets 0.
pub fn eva_vit_g_14(image_size: usize) -> VisionConfig {
    VisionConfig {
        image_size,
        patch_size: 14,
        num_channels: 3,
        hidden_size: 1408,
        num_hidden_layers: 39,
        num_attention_heads: 16,
        intermediate_size: 6144,
        hidden_act: Activation::Gelu,
        layer_norm_eps: 1e-6,
        qkv_bias: true,
        patch_bias: true,
        pre_layernorm: false,
        drop_path_rate: 0.0,
    }
}

/// CLIP ViT-L/14 as BLIP-2 uses it: 23 of its 24 blocks, no final norm.
///
/// Reference: LAVIS `create_clip_vit_L` since May 2023; before, it made 21 blocks by mistake. LAVIS
/// keeps torch's LayerNorm epsilon.
pub fn clip_vit_l_14(image_size: usize) -> VisionConfig {
    VisionConfig {
        image_size,
        patch_size: 14,
        num_channels: 3,
        hidden_size: 1024,
        num_hidden_layers: 23,
        num_attention_heads: 16,
        intermediate_size: 4096,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
        qkv_bias: true,
        patch_bias: false,
        pre_layernorm: true,
        drop_path_rate: 0.0,
    }
}
