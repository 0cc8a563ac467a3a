//! How texts are generated.

use serde::{Deserialize, Serialize};

use crate::LmError;

/// Settings of a generation, with transformers' names and defaults (except `max_new_tokens`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// Beams of the search; 1 is greedy, or sampling.
    pub num_beams: usize,
    /// The most new tokens.
    pub max_new_tokens: usize,
    /// The end token can't come before this many new tokens.
    pub min_new_tokens: usize,
    /// Texts a row, best first.
    pub num_return_sequences: usize,
    /// Beam scores are divided by length to this power.
    pub length_penalty: f32,
    /// Divides (or, below zero, multiplies) the logits of new tokens that occurred already.
    pub repetition_penalty: f32,
    /// No n-gram of this size occurs twice among the new tokens; 0 allows all.
    pub no_repeat_ngram_size: usize,
    /// Beam search ends a row once `num_beams` texts are finished.
    pub early_stopping: bool,
    /// Draws tokens instead of taking the best.
    pub do_sample: bool,
    /// Divides the logits before sampling.
    pub temperature: f32,
    /// Samples from this many best tokens; 0 from all.
    pub top_k: usize,
    /// Samples from the best tokens that together have this probability.
    pub top_p: f32,
    /// Seeds the sampling; each row has a stream of its own.
    pub seed: u64,
    /// End tokens; the captioner takes its own from the tokenizer.
    #[serde(skip)]
    pub eos_token_ids: Vec<u32>,
    /// Fills finished rows up; the captioner takes its own from the tokenizer.
    #[serde(skip)]
    pub pad_token_id: u32,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            num_beams: 1,
            max_new_tokens: 30,
            min_new_tokens: 0,
            num_return_sequences: 1,
            length_penalty: 1.0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            early_stopping: false,
            do_sample: false,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            seed: 0,
            eos_token_ids: Vec::new(),
            pad_token_id: 1,
        }
    }
}

impl GenerationConfig {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// Names the field.
    pub fn validate(&self) -> Result<(), LmError> {
        let error = |field, reason: &str| {
            Err(LmError::Field {
                field,
                reason: reason.to_string(),
            })
        };
        if self.num_beams == 0 {
            return error("num_beams", "must be at least 1");
        }
        if self.max_new_tokens == 0 {
            return error("max_new_tokens", "must be at least 1");
        }
        if self.min_new_tokens > self.max_new_tokens {
            return error("min_new_tokens", "is more than `max_new_tokens`");
        }
        if self.num_return_sequences == 0 {
            return error("num_return_sequences", "must be at least 1");
        }
        if !self.do_sample && self.num_return_sequences > self.num_beams {
            return error("num_return_sequences", "is more than `num_beams`");
        }
        if self.do_sample && self.num_beams > 1 {
            return error("do_sample", "goes with `num_beams` 1 only");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return error("repetition_penalty", "must be a positive number");
        }
        if !self.length_penalty.is_finite() {
            return error("length_penalty", "must be a number");
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return error("temperature", "must be a positive number");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return error("top_p", "must be in (0, 1]");
        }
        Ok(())
    }
}
