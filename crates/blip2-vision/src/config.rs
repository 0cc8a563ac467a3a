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
    /// How often training skips the last block for a sample; earlier blocks less, in proportion
    /// to their depth. BLIP-2 uses 0.
    #[serde(default)]
    pub drop_path_rate: f64,
}

fn three() -> usize {
    3
}

fn yes() -> bool {
    true
}

/// An impossible architecture, or a weight that doesn't fit it.
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
    /// A position embedding that can't be interpolated.
    #[error("position embedding of shape {shape:?}: {reason}")]
    PositionEmbedding {
        /// The shape that was given.
        shape: [usize; 3],
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
        self.check_image_size(self.image_size)?;
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
        if !(0.0..1.0).contains(&self.drop_path_rate) {
            let reason = format!("{} is not in [0, 1)", self.drop_path_rate);
            return error("drop_path_rate", reason);
        }
        Ok(())
    }

    fn check_image_size(&self, image_size: usize) -> Result<(), VisionError> {
        check_image_size(image_size, self.patch_size)
    }

    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches of an image.
    pub fn num_patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Tokens of an image: the class token and one for each patch.
    pub fn num_tokens(&self) -> usize {
        1 + self.num_patches()
    }

    /// Parameters of the encoder, counted without making it.
    pub fn num_params(&self) -> usize {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let bias = |has, size| if has { size } else { 0 };
        let norm = 2 * width;
        let patch_weights = width * self.num_channels * self.patch_size * self.patch_size;
        let embeddings = patch_weights
            + bias(self.patch_bias, width)
            + (1 + self.num_tokens()) * width
            + bias(self.pre_layernorm, norm);
        let attention = 3 * width * width + bias(self.qkv_bias, 3 * width) + width * width + width;
        let mlp = 2 * width * inner + inner + width;
        embeddings + self.num_hidden_layers * (2 * norm + attention + mlp)
    }
}

/// Images must be cut into whole patches.
pub(crate) fn check_image_size(image_size: usize, patch_size: usize) -> Result<(), VisionError> {
    if image_size >= patch_size && image_size.is_multiple_of(patch_size) {
        return Ok(());
    }
    Err(VisionError::Field {
        field: "image_size",
        reason: format!("{image_size} is not a multiple of `patch_size` {patch_size}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::{clip_vit_l_14, eva_vit_g_14};

    #[test]
    fn impossible_shapes_name_their_field() {
        type Change = fn(&mut VisionConfig);
        let cases: [(&str, Change); 7] = [
            ("hidden_size", |config| config.num_attention_heads = 9),
            ("image_size", |config| config.image_size = 225),
            ("patch_size", |config| config.patch_size = 0),
            ("num_hidden_layers", |config| config.num_hidden_layers = 0),
            ("layer_norm_eps", |config| config.layer_norm_eps = f64::NAN),
            ("drop_path_rate", |config| config.drop_path_rate = 1.0),
            ("drop_path_rate", |config| config.drop_path_rate = f64::NAN),
        ];
        for (expected, change) in cases {
            let mut config = eva_vit_g_14(224);
            change(&mut config);
            match config.validate().unwrap_err() {
                VisionError::Field { field, .. } => assert_eq!(field, expected),
                other => panic!("{other}"),
            }
        }
        assert_eq!(eva_vit_g_14(224).validate(), Ok(()));
        assert_eq!(clip_vit_l_14(224).validate(), Ok(()));
        assert_eq!(eva_vit_g_14(224).num_tokens(), 257);
    }

    #[test]
    fn parameter_count_is_that_of_transformers_blip2_vision_model() {
        // `Blip2VisionModel(Blip2VisionConfig())` without its `post_layernorm`, see
        // tests/reference/vision.py.
        assert_eq!(eva_vit_g_14(224).num_params(), EVA_G_PARAMS);
    }

    const EVA_G_PARAMS: usize = 985_949_440;

    #[test]
    fn unknown_fields_are_refused_and_optional_ones_have_the_usual_values() {
        let json = r#"{"image_size": 28, "patch_size": 14, "hidden_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
            "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}"#;
        let config: VisionConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config.hidden_act, Activation::QuickGelu);
        assert_eq!((config.num_channels, config.drop_path_rate), (3, 0.0));
        assert!(config.qkv_bias && config.patch_bias && !config.pre_layernorm);
        let misspelt = json.replace("image_size", "img_size");
        let error = serde_json::from_str::<VisionConfig>(&misspelt).unwrap_err();
        assert!(error.to_string().contains("img_size"), "{error}");
    }
}
