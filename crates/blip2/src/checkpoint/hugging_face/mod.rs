//! Hugging Face's `config.json` and `generation_config.json`, of old and new transformers.

mod fields;
mod generation;
mod write;

use std::path::Path;

use blip2_lm::OptConfig;
use blip2_qformer::QFormerConfig;
use blip2_vision::VisionConfig;

use self::fields::Fields;
pub use self::generation::read_generation;
pub use self::write::{
    write_config, write_opt_config, write_retrieval_config, write_vision_config,
};
use crate::Blip2Error;

/// The file's name.
pub const CONFIG_FILE: &str = "config.json";

/// transformers' word for BLIP-2.
const BLIP2: &str = "blip-2";

/// What a folder's `config.json` says, part by part. Which parts there are depends on the model
/// that the folder holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HuggingFaceConfig {
    /// The image encoder.
    pub vision: Option<VisionConfig>,
    /// The epsilon of the LayerNorm after it.
    pub ln_vision_eps: Option<f64>,
    /// The Q-Former.
    pub qformer: Option<QFormerConfig>,
    /// The language model.
    pub text: Option<OptConfig>,
    /// The tokens that end a text, where the file names them.
    pub eos_token_ids: Vec<u32>,
    /// The token that stands for an image in prompts, where there is one.
    pub image_token_id: Option<u32>,
}

/// Reads `config.json` of a BLIP-2 model, an image encoder (`blip_2_vision_model`, `clip`,
/// `clip_vision_model`) or an OPT model.
///
/// Keys that say nothing about the architecture are passed over: transformers has written many
/// different sets of them. Missing keys have transformers' defaults.
///
/// # Errors
///
/// A missing or broken file, another kind of model, or a value of the wrong type or kind; the field
/// is named.
pub fn read_config(path: &Path) -> Result<HuggingFaceConfig, Blip2Error> {
    let root = Fields::read(path)?;
    match root.text("model_type")?.unwrap_or(BLIP2) {
        "opt" => Ok(HuggingFaceConfig {
            eos_token_ids: root.ids("eos_token_id")?,
            text: Some(opt(&root)?),
            ..HuggingFaceConfig::default()
        }),
        "blip_2_vision_model" | "clip_vision_model" => Ok(HuggingFaceConfig {
            vision: Some(vision(&root)?),
            ..HuggingFaceConfig::default()
        }),
        "clip" => Ok(HuggingFaceConfig {
            vision: Some(vision(&root.object("vision_config")?)?),
            ..HuggingFaceConfig::default()
        }),
        BLIP2 => blip2(&root),
        _ => Err(root.wrong_type("model_type", BLIP2)),
    }
}

fn blip2(root: &Fields) -> Result<HuggingFaceConfig, Blip2Error> {
    let vision_fields = root.object("vision_config")?;
    let vision = vision(&vision_fields)?;
    let num_query_tokens = root.size("num_query_tokens", 32)?;
    let qformer = qformer(
        &root.object("qformer_config")?,
        num_query_tokens,
        vision.hidden_size,
    )?;
    let text_fields = root.object("text_config")?;
    if text_fields.text("model_type")?.unwrap_or("opt") != "opt" {
        return Err(text_fields.wrong_type("model_type", "opt"));
    }
    let image_token_id = root.ids("image_token_index")?.first().copied();
    Ok(HuggingFaceConfig {
        // The LayerNorm after the encoder is `post_layernorm` there, with the encoder's epsilon.
        // Our own files keep LAVIS's, which is another.
        ln_vision_eps: Some(root.number("ln_vision_eps", vision.layer_norm_eps)?),
        eos_token_ids: text_fields.ids("eos_token_id")?,
        vision: Some(vision),
        qformer: Some(qformer),
        text: Some(opt(&text_fields)?),
        image_token_id,
    })
}

fn vision(fields: &Fields) -> Result<VisionConfig, Blip2Error> {
    let clip = fields
        .text("model_type")?
        .is_some_and(|name| name.starts_with("clip"));
    // Towers that this program wrote say more than transformers knows.
    let config = VisionConfig {
        image_size: fields.size("image_size", 224)?,
        patch_size: fields.size("patch_size", if clip { 32 } else { 14 })?,
        num_channels: fields.size("num_channels", 3)?,
        hidden_size: fields.size("hidden_size", if clip { 768 } else { 1408 })?,
        num_hidden_layers: fields.size("num_hidden_layers", if clip { 12 } else { 39 })?,
        num_attention_heads: fields.size("num_attention_heads", if clip { 12 } else { 16 })?,
        intermediate_size: fields.size("intermediate_size", if clip { 3072 } else { 6144 })?,
        hidden_act: fields.word("hidden_act", if clip { "quick_gelu" } else { "gelu" })?,
        layer_norm_eps: fields.number("layer_norm_eps", if clip { 1e-5 } else { 1e-6 })?,
        qkv_bias: fields.flag("qkv_bias", true)?,
        patch_bias: fields.flag("patch_bias", !clip)?,
        pre_layernorm: fields.flag("pre_layernorm", clip)?,
        drop_path_rate: fields.number("drop_path_rate", 0.0)?,
    };
    config.validate()?;
    Ok(config)
}

fn qformer(
    fields: &Fields,
    num_query_tokens: usize,
    vision_width: usize,
) -> Result<QFormerConfig, Blip2Error> {
    let config = QFormerConfig {
        num_query_tokens,
        hidden_size: fields.size("hidden_size", 768)?,
        num_hidden_layers: fields.size("num_hidden_layers", 12)?,
        num_attention_heads: fields.size("num_attention_heads", 12)?,
        intermediate_size: fields.size("intermediate_size", 3072)?,
        hidden_act: fields.word("hidden_act", "gelu")?,
        cross_attention_frequency: fields.size("cross_attention_frequency", 2)?,
        // transformers takes the encoder's width, whatever the file says.
        encoder_hidden_size: vision_width,
        hidden_dropout_prob: fields.number("hidden_dropout_prob", 0.1)?,
        attention_probs_dropout_prob: fields.number("attention_probs_dropout_prob", 0.1)?,
        initializer_range: fields.number("initializer_range", 0.02)?,
        layer_norm_eps: fields.number("layer_norm_eps", 1e-12)?,
        // Captioning drops the text side.
        text: None,
    };
    config.validate()?;
    Ok(config)
}

fn opt(fields: &Fields) -> Result<OptConfig, Blip2Error> {
    for (flag, default) in [
        ("tie_word_embeddings", true),
        ("layer_norm_elementwise_affine", true),
    ] {
        if fields.flag(flag, default)? != default {
            return Err(
                fields.invalid(flag, "no published OPT model has this, and it is not built")
            );
        }
    }
    if fields.flag("_remove_final_layer_norm", false)? {
        let reason = "checkpoints converted before transformers 4.20 must be converted again";
        return Err(fields.invalid("_remove_final_layer_norm", reason));
    }
    let hidden_size = fields.size("hidden_size", 768)?;
    let config = OptConfig {
        vocab_size: fields.size("vocab_size", 50272)?,
        hidden_size,
        num_hidden_layers: fields.size("num_hidden_layers", 12)?,
        num_attention_heads: fields.size("num_attention_heads", 12)?,
        ffn_dim: fields.size("ffn_dim", 3072)?,
        max_position_embeddings: fields.size("max_position_embeddings", 2048)?,
        word_embed_proj_dim: fields.size("word_embed_proj_dim", hidden_size)?,
        do_layer_norm_before: fields.flag("do_layer_norm_before", true)?,
        activation_function: fields.word("activation_function", "relu")?,
        enable_bias: fields.flag("enable_bias", true)?,
        layer_norm_eps: fields.number("layer_norm_eps", 1e-5)?,
        // BLIP-2 keeps the language model frozen and in evaluation mode.
        dropout: 0.0,
        pad_token_id: fields.id("pad_token_id", 1)?,
        bos_token_id: fields.id("bos_token_id", 2)?,
        eos_token_id: fields.id("eos_token_id", 2)?,
    };
    config.validate()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(config: &Value) -> Result<HuggingFaceConfig, Blip2Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONFIG_FILE);
        std::fs::write(&path, config.to_string()).unwrap();
        read_config(&path)
    }

    /// The configs of `Salesforce/blip2-opt-2.7b`: most values are transformers' defaults.
    #[test]
    fn an_almost_empty_config_is_blip2_opt_with_defaults() {
        let config = read(&json!({
            "model_type": "blip-2",
            "vision_config": {"model_type": "blip_2_vision_model"},
            "qformer_config": {"model_type": "blip_2_qformer"},
            "text_config": {
                "model_type": "opt", "hidden_size": 2560, "num_hidden_layers": 32, "ffn_dim": 10240,
                "num_attention_heads": 32, "eos_token_id": 50118, "word_embed_proj_dim": null
            },
            "image_token_index": 50265
        }))
        .unwrap();
        assert_eq!(
            config.vision,
            Some(blip2_vision::presets::eva_vit_g_14(224))
        );
        assert_eq!(config.qformer, Some(QFormerConfig::bert_base(1408)));
        let text = config.text.unwrap();
        assert_eq!(
            text,
            OptConfig {
                eos_token_id: 50118,
                ..blip2_lm::opt::presets::opt_2_7b()
            }
        );
        assert_eq!(config.eos_token_ids, [50118]);
        assert_eq!(config.image_token_id, Some(50265));
    }

    #[test]
    fn towers_alone_are_read() {
        let clip = read(&json!({"model_type": "clip", "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": 1024, "patch_size": 14,
            "num_hidden_layers": 23, "num_attention_heads": 16, "intermediate_size": 4096}}));
        let expected = blip2_vision::presets::clip_vit_l_14(224);
        assert_eq!(clip.unwrap().vision, Some(expected));
        let opt = read(&json!({"model_type": "opt", "eos_token_id": [2, 50118]})).unwrap();
        assert_eq!(opt.text, Some(blip2_lm::opt::presets::opt_125m()));
        assert_eq!(opt.eos_token_ids, [2, 50118]);
    }

    #[test]
    fn wrong_configs_name_the_field_and_what_was_found() {
        for (config, expected) in [
            (json!({"model_type": "blip"}), ["`model_type`", "`blip`"]),
            (
                json!({"model_type": "blip-2", "text_config": {"model_type": "t5"}}),
                ["`text_config.model_type`", "`t5`"],
            ),
            (
                json!({"model_type": "opt", "hidden_size": "big"}),
                ["`hidden_size`", "\"big\""],
            ),
            (
                json!({"model_type": "blip-2", "vision_config": {"hidden_act": "silu"}}),
                ["`vision_config.hidden_act`", "silu"],
            ),
            (
                json!({"model_type": "blip-2", "qformer_config": {"num_attention_heads": 7}}),
                ["num_attention_heads", "768"],
            ),
            (
                json!({"model_type": "opt", "tie_word_embeddings": false}),
                ["`tie_word_embeddings`", "not built"],
            ),
            (json!([1]), ["config.json", "expected an object"]),
        ] {
            let error = read(&config).unwrap_err().to_string();
            for expected in expected {
                assert!(error.contains(expected), "{expected}: {error}");
            }
        }
    }
}
