//! How to write, and its checks.

use serde::{Deserialize, Serialize};

use crate::{Hypothesis, LmError};

/// How to write. Names and defaults are those of transformers, with a limit of 30 new tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// Texts kept at each step; 1 is greedy search or sampling.
    pub num_beams: usize,
    /// The most tokens to write, the ending token counted.
    pub max_new_tokens: usize,
    /// Tokens before an ending token is allowed.
    pub min_new_tokens: usize,
    /// Texts of a row; more than one needs as many beams, or sampling.
    pub num_return_sequences: usize,
    /// Beam search ranks by `sum of log-probabilities / tokens ^ length_penalty`: above 0 favours
    /// long texts.
    pub length_penalty: f32,
    /// Above 1 makes tokens that were written before less likely.
    pub repetition_penalty: f32,
    /// No sequence of so many tokens is written twice; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Whether the prompt counts as written for the penalty and the n-grams: with transformers'
    /// BLIP-2 it does, with LAVIS and mmpretrain it doesn't. (Whoever calls [`generate_after`]
    /// decides; this is for those who know the prompt.)
    ///
    /// [`generate_after`]: crate::generate_after
    pub penalize_prompt: bool,
    /// Beam search stops as soon as `num_beams` texts have ended, though a better one may come.
    pub early_stopping: bool,
    /// Draw tokens instead of taking the likeliest. Not with beams.
    pub do_sample: bool,
    /// Sampling: logits are divided by it.
    pub temperature: f32,
    /// Sampling: only so many of the likeliest tokens; 0 is all.
    pub top_k: usize,
    /// Sampling: only the likeliest tokens whose probabilities sum up to it; 1 is all.
    pub top_p: f32,
    /// Sampling: the draws of each row start from it, whatever the batch.
    pub seed: u64,
    /// Tokens that end a text. Empty: only `max_new_tokens` does.
    pub eos_token_ids: Vec<u32>,
    /// What [`pad`](Self::pad) fills with.
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
            penalize_prompt: false,
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
    /// Checks the fields against each other.
    ///
    /// # Errors
    ///
    /// Names the field.
    pub fn validate(&self) -> Result<(), LmError> {
        for (field, value) in [
            ("num_beams", self.num_beams),
            ("max_new_tokens", self.max_new_tokens),
            ("num_return_sequences", self.num_return_sequences),
        ] {
            if value == 0 {
                return Err(LmError::field(field, "must be at least 1"));
            }
        }
        for (field, value) in [
            ("repetition_penalty", self.repetition_penalty),
            ("temperature", self.temperature),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(LmError::field(field, "must be a positive number"));
            }
        }
        if !self.length_penalty.is_finite() {
            return Err(LmError::field("length_penalty", "must be a number"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(LmError::field("top_p", "must be more than 0 and at most 1"));
        }
        if self.min_new_tokens > self.max_new_tokens {
            let reason = format!("is more than `max_new_tokens` {}", self.max_new_tokens);
            return Err(LmError::field("min_new_tokens", reason));
        }
        if self.do_sample && self.num_beams > 1 {
            let reason = "sampling has no beams: set `num_beams` to 1 or `do_sample` to false";
            return Err(LmError::field("do_sample", reason));
        }
        if !self.do_sample && self.num_return_sequences > self.num_beams {
            let reason = format!("is more than `num_beams` {}", self.num_beams);
            return Err(LmError::field("num_return_sequences", reason));
        }
        Ok(())
    }

    /// Checks the fields that depend on the model.
    pub(super) fn validate_for(&self, vocab_size: usize) -> Result<(), LmError> {
        if let Some(eos) = self
            .eos_token_ids
            .iter()
            .find(|&&id| id as usize >= vocab_size)
        {
            let reason = format!("{eos} is not in the model's vocabulary of {vocab_size}");
            return Err(LmError::field("eos_token_ids", reason));
        }
        if self.num_beams > 1 && self.candidates() > vocab_size {
            let reason = format!("a vocabulary of {vocab_size} is too small for so many beams");
            return Err(LmError::field("num_beams", reason));
        }
        Ok(())
    }

    /// Continuations that a step of beam search looks at: so many that `num_beams` of them go on
    /// even if every beam's likeliest continuations are the ending tokens.
    pub(super) fn candidates(&self) -> usize {
        self.num_beams * (1 + self.eos_token_ids.len().max(1))
    }

    /// The token ids of many texts as rows of one length, short ones filled with `pad_token_id`.
    pub fn pad<'a>(&self, texts: impl IntoIterator<Item = &'a Hypothesis>) -> Vec<Vec<u32>> {
        let mut rows: Vec<Vec<u32>> = texts
            .into_iter()
            .map(|text| text.token_ids.clone())
            .collect();
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        for row in &mut rows {
            row.resize(longest, self.pad_token_id);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_configs_name_their_field() {
        type Change = fn(&mut GenerationConfig);
        let cases: [(&str, Change); 10] = [
            ("num_beams", |config| config.num_beams = 0),
            ("max_new_tokens", |config| config.max_new_tokens = 0),
            ("min_new_tokens", |config| config.min_new_tokens = 31),
            ("num_return_sequences", |config| {
                config.num_return_sequences = 2
            }),
            ("repetition_penalty", |config| {
                config.repetition_penalty = 0.0
            }),
            ("temperature", |config| config.temperature = f32::NAN),
            ("top_p", |config| config.top_p = 0.0),
            ("length_penalty", |config| {
                config.length_penalty = f32::INFINITY
            }),
            ("do_sample", |config| {
                (config.do_sample, config.num_beams) = (true, 2)
            }),
            ("num_return_sequences", |config| {
                (config.num_beams, config.num_return_sequences) = (3, 4)
            }),
        ];
        for (expected, change) in cases {
            let mut config = GenerationConfig::default();
            change(&mut config);
            match config.validate() {
                Err(LmError::Field { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
        assert_eq!(GenerationConfig::default().validate(), Ok(()));
    }

    #[test]
    fn the_vocabulary_must_hold_the_ends_and_the_candidates() {
        let mut config = GenerationConfig {
            eos_token_ids: vec![4, 9],
            ..Default::default()
        };
        let field = |error| match error {
            Err(LmError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(config.validate_for(9)), "eos_token_ids");
        assert_eq!(config.validate_for(10), Ok(()));
        config.num_beams = 4;
        assert_eq!(config.candidates(), 12);
        assert_eq!(field(config.validate_for(11)), "num_beams");
        assert_eq!(config.validate_for(12), Ok(()));
    }

    #[test]
    fn missing_fields_have_defaults_and_unknown_ones_are_refused() {
        let parsed: GenerationConfig = serde_json::from_str(r#"{"num_beams": 5}"#).unwrap();
        let expected = GenerationConfig {
            num_beams: 5,
            ..Default::default()
        };
        assert_eq!(parsed, expected);
        assert!(serde_json::from_str::<GenerationConfig>(r#"{"max_length": 30}"#).is_err());
    }

    #[test]
    fn pad_makes_rows_of_one_length() {
        let text = |ids: &[u32]| Hypothesis {
            token_ids: ids.to_vec(),
            score: 0.0,
        };
        let config = GenerationConfig::default();
        let rows = config.pad(&[text(&[5, 6, 7]), text(&[8])]);
        assert_eq!(rows, [[5, 6, 7], [8, 1, 1]]);
        assert!(config.pad(&[]).is_empty());
    }
}
