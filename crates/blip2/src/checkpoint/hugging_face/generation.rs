//! `generation_config.json`: how captions are written unless the caller says otherwise.

use std::path::Path;

use blip2_lm::GenerationConfig;

use super::fields::Fields;
use crate::Blip2Error;

/// The file's name.
const FILE: &str = "generation_config.json";

/// The generation settings of a folder: transformers' defaults where the file, or a field of it,
/// is not there. Its `max_length`, which counts the prompt, is not used.
///
/// # Errors
///
/// A broken file, or a field of the wrong type.
pub fn read_generation(folder: &Path) -> Result<GenerationConfig, Blip2Error> {
    let defaults = GenerationConfig::default();
    let path = folder.join(FILE);
    if !path.is_file() {
        return Ok(defaults);
    }
    let fields = Fields::read(&path)?;
    let config = GenerationConfig {
        num_beams: fields.size("num_beams", defaults.num_beams)?,
        max_new_tokens: fields.size("max_new_tokens", defaults.max_new_tokens)?,
        min_new_tokens: fields.size("min_new_tokens", defaults.min_new_tokens)?,
        num_return_sequences: fields.size("num_return_sequences", 1)?,
        length_penalty: fields.number("length_penalty", 1.0)? as f32,
        repetition_penalty: fields.number("repetition_penalty", 1.0)? as f32,
        no_repeat_ngram_size: fields.size("no_repeat_ngram_size", 0)?,
        // It may be the word "never", too, which is no early stopping either.
        early_stopping: fields.flag("early_stopping", false).unwrap_or(false),
        do_sample: fields.flag("do_sample", false)?,
        temperature: fields.number("temperature", 1.0)? as f32,
        top_k: fields.size("top_k", defaults.top_k)?,
        top_p: fields.number("top_p", 1.0)? as f32,
        eos_token_ids: fields.ids("eos_token_id")?,
        pad_token_id: fields.id("pad_token_id", defaults.pad_token_id)?,
        seed: defaults.seed,
        penalize_prompt: defaults.penalize_prompt,
    };
    config
        .validate()
        .map_err(|error| fields.invalid("generation", &error.to_string()))?;
    Ok(config)
}
