//! Writes what transformers reads.

use std::path::Path;

use blip2_lm::{GenerationConfig, OptConfig};
use blip2_qformer::QFormerConfig;
use blip2_vision::VisionConfig;
use serde::Serialize;
use serde_json::{Value, json};

use super::CONFIG_FILE;
use crate::Blip2Error;
use crate::checkpoint::{Architecture, WeightsDType};
use crate::stage1::Stage1Architecture;

/// Writes `config.json` and `generation_config.json` of a whole captioner.
///
/// # Errors
///
/// If the file can't be written, or transformers' BLIP-2 can't have this architecture.
pub fn write_config(
    architecture: &Architecture,
    generation: &GenerationConfig,
    image_token_id: Option<u32>,
    dtype: WeightsDType,
    folder: &Path,
) -> Result<(), Blip2Error> {
    let text = &architecture.text;
    let mut text_config = opt(text)?;
    // The decoder's own generation reads its end from here.
    text_config["eos_token_id"] = match generation.eos_token_ids.as_slice() {
        [] => text.eos_token_id.into(),
        [one] => (*one).into(),
        several => several.into(),
    };
    let eos = text_config["eos_token_id"].clone();
    let config = json!({
        "architectures": ["Blip2ForConditionalGeneration"],
        "model_type": "blip-2",
        "dtype": dtype.word(),
        "num_query_tokens": architecture.qformer.num_query_tokens,
        // transformers keeps this and does not use it.
        "ln_vision_eps": architecture.ln_vision_eps,
        "image_token_index": image_token_id,
        "vision_config": vision(&architecture.vision)?,
        "qformer_config": qformer(&architecture.qformer)?,
        "text_config": text_config,
        "use_decoder_only_language_model": true,
    });
    write(&config, &folder.join(CONFIG_FILE))?;
    let defaults = GenerationConfig::default();
    let mut fields = json!({
        "bos_token_id": text.bos_token_id,
        "eos_token_id": eos,
        "pad_token_id": text.pad_token_id,
        "max_new_tokens": generation.max_new_tokens,
        "num_beams": generation.num_beams,
    });
    // Only what differs: transformers warns about settings of sampling in a greedy config.
    let mut set = |name: &str, value: Value, is_default: bool| {
        if !is_default {
            fields[name] = value;
        }
    };
    let penalty = generation.length_penalty;
    set(
        "length_penalty",
        penalty.into(),
        penalty == defaults.length_penalty,
    );
    let penalty = generation.repetition_penalty;
    set(
        "repetition_penalty",
        penalty.into(),
        penalty == defaults.repetition_penalty,
    );
    let size = generation.no_repeat_ngram_size;
    set("no_repeat_ngram_size", size.into(), size == 0);
    let least = generation.min_new_tokens;
    set("min_new_tokens", least.into(), least == 0);
    if generation.do_sample {
        set("do_sample", true.into(), false);
        set("temperature", generation.temperature.into(), false);
        set("top_k", generation.top_k.into(), false);
        set("top_p", generation.top_p.into(), false);
    }
    write(&fields, &folder.join("generation_config.json"))
}

/// Writes `config.json` of a model of stage 1, transformers' `Blip2ForImageTextRetrieval`.
///
/// # Errors
///
/// If the file can't be written.
pub fn write_retrieval_config(
    architecture: &Stage1Architecture,
    dtype: WeightsDType,
    folder: &Path,
) -> Result<(), Blip2Error> {
    let mut qformer = qformer(&architecture.qformer)?;
    qformer["use_qformer_text_input"] = true.into();
    if let Some(text) = &architecture.qformer.text {
        qformer["vocab_size"] = text.vocab_size.into();
        qformer["max_position_embeddings"] = text.max_position_embeddings.into();
        qformer["pad_token_id"] = text.pad_token_id.into();
    }
    let config = json!({
        "architectures": ["Blip2ForImageTextRetrieval"],
        "model_type": "blip-2",
        "dtype": dtype.word(),
        "num_query_tokens": architecture.qformer.num_query_tokens,
        // transformers keeps this and does not use it.
        "ln_vision_eps": architecture.ln_vision_eps,
        "image_text_hidden_size": architecture.heads.embed_dim,
        "vision_config": vision(&architecture.vision)?,
        "qformer_config": qformer,
    });
    write(&config, &folder.join(CONFIG_FILE))
}

/// Writes `config.json` of an image encoder alone.
///
/// # Errors
///
/// If the file can't be written.
pub fn write_vision_config(config: &VisionConfig, folder: &Path) -> Result<(), Blip2Error> {
    write(&vision(config)?, &folder.join(CONFIG_FILE))
}

/// Writes `config.json` of a language model alone.
///
/// # Errors
///
/// If the file can't be written.
pub fn write_opt_config(config: &OptConfig, folder: &Path) -> Result<(), Blip2Error> {
    write(&opt(config)?, &folder.join(CONFIG_FILE))
}

fn vision(config: &VisionConfig) -> Result<Value, Blip2Error> {
    let mut fields = object(config)?;
    fields["model_type"] = "blip_2_vision_model".into();
    Ok(fields)
}

fn qformer(config: &QFormerConfig) -> Result<Value, Blip2Error> {
    let mut fields = object(config)?;
    fields["model_type"] = "blip_2_qformer".into();
    if let Some(fields) = fields.as_object_mut() {
        // transformers has it beside the parts.
        fields.remove("num_query_tokens");
        fields.remove("text");
    }
    Ok(fields)
}

fn opt(config: &OptConfig) -> Result<Value, Blip2Error> {
    let mut fields = object(config)?;
    fields["model_type"] = "opt".into();
    Ok(fields)
}

fn object<T: Serialize>(config: &T) -> Result<Value, Blip2Error> {
    serde_json::to_value(config).map_err(|error| Blip2Error::Format {
        path: CONFIG_FILE.into(),
        reason: error.to_string(),
    })
}

fn write(value: &Value, path: &Path) -> Result<(), Blip2Error> {
    let text = format!("{value:#}\n");
    std::fs::write(path, text).map_err(Blip2Error::io(path))
}
