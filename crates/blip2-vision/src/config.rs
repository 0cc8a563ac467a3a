//! The architecture of an image encoder, and its checks.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Activation;

/// A vision transformer. Field names are Hugging Face's where it has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Height and width of the input, in pixels.
    pub image_size: usize,
    /// Height and width of a patch, in pixels.
    pub patch_size: usize,
    /// Colour channels.
    #[serde(default = "three")]
    pub num_channels: usize,
    /// Channels of a token.
    pub hidden_size: usize,
    /// Blocks. BLIP-2 uses the first 39 of EVA-ViT-g's 40.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Channels inside the MLP.
    pub intermediate_size: usize,
    /// The MLP's activation.
    pub hidden_act: Activation,
    /// The epsilon of the blocks' norms.
    pub layer_norm_eps: f64,
    /// A bias on query, key and value. (EVA has none on the key; import fills zeros.)
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// A bias on the patch projection; CLIP has none.
    #[serde(default = "yes")]
    pub patch_bias: bool,
    /// A LayerNorm before the first block, as CLIP has it.
    #[serde(default)]
    pub pre_layernorm: bool,
}

fn three() -> usize {
    3
}

fn yes() -> bool {
    true
}

/// An impossible architecture.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum VisionError {
    /// A field has a value that can't work.
    #[error("field `{field}`: {reason}")]
    Field {
        /// The field of [`VisionConfig`].
        field: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl VisionConfig {
    /// Checks that the dimensions fit each other.
    ///
    /// # Errors
    ///
    /// Names the field.
    pub fn validate(&self) -> Result<(), VisionError> {
        let error = |field, reason: String| Err(VisionError::Field { field, reason });
        for (field, value) in [
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("num_channels", self.num_channels),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
        ] {
            if value == 0 {
                return error(field, "must be at least 1".into());
            }
        }
        if !self.image_size.is_multiple_of(self.patch_size) {
            let reason = format!(
                "{} is not a multiple of `patch_size` {}",
                self.image_size, self.patch_size
            );
            return error("image_size", reason);
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let reason = format!(
                "{} is not divisible by `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            );
            return error("hidden_size", reason);
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps.is_finite()) {
            return error("layer_norm_eps", "must be a positive number".into());
        }
        Ok(())
    }

    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Tokens of an image: the class token and one for each patch.
    pub fn num_tokens(&self) -> usize {
        1 + self.grid() * self.grid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::eva_vit_g_14;

    #[test]
    fn impossible_shapes_name_their_field() {
        type Change = fn(&mut VisionConfig);
        let cases: [(&str, Change); 4] = [
            ("hidden_size", |config| config.num_attention_heads = 9),
            ("image_size", |config| config.image_size = 225),
            ("patch_size", |config| config.patch_size = 0),
            ("layer_norm_eps", |config| config.layer_norm_eps = f64::NAN),
        ];
        for (expected, change) in cases {
            let mut config = eva_vit_g_14(224);
            change(&mut config);
            let VisionError::Field { field, .. } = config.validate().unwrap_err();
            assert_eq!(field, expected);
        }
        assert_eq!(eva_vit_g_14(224).validate(), Ok(()));
        assert_eq!(eva_vit_g_14(224).num_tokens(), 257);
    }
}
