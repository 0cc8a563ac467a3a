//! The image encoder: `blip2_vision::VisionTransformer`.

use blip2_vision::VisionConfig;

use super::Tower;
use crate::plan::dry_run::Tensor;
use crate::plan::work::After;

impl Tower<'_> {
    /// The image encoder; gives `[batch · tokens, hidden_size]`.
    pub fn vision(&mut self, config: &VisionConfig, batch: usize) -> Tensor {
        self.begin();
        let (width, patches) = (config.hidden_size, config.num_patches());
        let pixels = config.num_channels * config.patch_size * config.patch_size;
        let x = self.tape.constant(batch * patches, pixels);
        let patches = self.layer("patch_embed", x, width, !config.patch_bias, After::Bias);
        let class = self.rows("class_token", 1, width);
        let positions = self.rows("position_embedding", config.num_tokens(), width);
        let rows = batch * config.num_tokens();
        let hidden = self.tape.copied(&[&class, &patches], rows, width);
        drop(patches);
        let mut hidden = self.tape.add(hidden, positions);
        if config.pre_layernorm {
            hidden = self.norm("pre_layernorm", hidden);
        }
        for index in 0..config.num_hidden_layers {
            let config = config.clone();
            hidden = self.block(hidden, move |tower, x| {
                tower.vision_block(&config, index, x, batch)
            });
        }
        hidden
    }

    fn vision_block(
        &mut self,
        config: &VisionConfig,
        index: usize,
        hidden: Tensor,
        batch: usize,
    ) -> Tensor {
        self.begin();
        let name = |layer: &str| format!("vision_model.encoder.layers.{index}.{layer}");
        let width = config.hidden_size;
        let normed = self.norm(&name("layer_norm1"), hidden.clone());
        let qkv = name("self_attn.qkv");
        let qkv = self.layer(&qkv, normed, 3 * width, !config.qkv_bias, After::Bias);
        let parts = [0, 1, 2].map(|_| self.tape.channels(&qkv, width));
        let context = self
            .tape
            .attention(parts, batch, config.num_attention_heads, false);
        let attended = self.linear(&name("self_attn.projection"), context, width);
        drop(qkv);
        let hidden = self.tape.add(hidden, attended);
        let normed = self.norm(&name("layer_norm2"), hidden.clone());
        let inner = config.intermediate_size;
        let inner = self.layer(&name("mlp.fc1"), normed, inner, false, After::Gelu);
        let transformed = self.linear(&name("mlp.fc2"), inner, width);
        self.tape.add(hidden, transformed)
    }
}
