//! How captions are written, by flags.

use blip2_lm::GenerationConfig;
use serde::Serialize;

use crate::RunError;

/// Every flag overrides what the model's own config says.
#[derive(Debug, Clone, Default, Serialize, clap::Args)]
pub(super) struct Args {
    /// Beams of the search; 1 is greedy.
    #[arg(long, value_name = "N")]
    num_beams: Option<usize>,
    /// Longest caption in tokens.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Shortest caption in tokens.
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<usize>,
    /// Beam search: above 0 favours long captions.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    length_penalty: Option<f32>,
    /// Above 1 makes tokens that were written before less likely.
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// No sequence of so many tokens is written twice.
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// Draw tokens instead of searching the likeliest.
    #[arg(long)]
    do_sample: bool,
    /// Sampling: logits are divided by it.
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Sampling: only so many of the likeliest tokens; 0 is all.
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Sampling: only the likeliest tokens whose probabilities sum up to it.
    #[arg(long, value_name = "X")]
    top_p: Option<f32>,
    /// Sampling: the same seed draws the same captions.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Args {
    /// The flags on top of `preset`, for `num_captions` captions an image.
    ///
    /// # Errors
    ///
    /// Values that can't go together.
    pub fn apply(
        &self,
        preset: &GenerationConfig,
        num_captions: usize,
    ) -> Result<GenerationConfig, RunError> {
        let do_sample = self.do_sample || preset.do_sample;
        let num_beams = match (self.num_beams, do_sample) {
            (None, true) => 1,
            (beams, true) => beams.unwrap_or(1),
            // Several captions come out of several beams.
            (beams, false) => beams.unwrap_or(preset.num_beams).max(num_captions),
        };
        let config = GenerationConfig {
            num_beams,
            max_new_tokens: self.max_new_tokens.unwrap_or(preset.max_new_tokens),
            min_new_tokens: self.min_new_tokens.unwrap_or(preset.min_new_tokens),
            num_return_sequences: num_captions,
            length_penalty: self.length_penalty.unwrap_or(preset.length_penalty),
            repetition_penalty: self.repetition_penalty.unwrap_or(preset.repetition_penalty),
            no_repeat_ngram_size: self
                .no_repeat_ngram_size
                .unwrap_or(preset.no_repeat_ngram_size),
            do_sample,
            temperature: self.temperature.unwrap_or(preset.temperature),
            top_k: self.top_k.unwrap_or(preset.top_k),
            top_p: self.top_p.unwrap_or(preset.top_p),
            seed: self.seed.unwrap_or(preset.seed),
            ..preset.clone()
        };
        config
            .validate()
            .map_err(|error| RunError::Usage(error.to_string()))?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_the_preset_and_captions_need_beams() {
        let preset = GenerationConfig {
            num_beams: 5,
            min_new_tokens: 8,
            ..GenerationConfig::default()
        };
        let config = Args::default().apply(&preset, 1).unwrap();
        assert_eq!(config, preset);
        let more = Args::default().apply(&preset, 7).unwrap();
        assert_eq!((more.num_beams, more.num_return_sequences), (7, 7));
        let sampled = Args {
            do_sample: true,
            seed: Some(3),
            ..Args::default()
        };
        let sampled = sampled.apply(&preset, 4).unwrap();
        assert_eq!((sampled.num_beams, sampled.num_return_sequences), (1, 4));
        let wrong = Args {
            max_new_tokens: Some(4),
            ..Args::default()
        };
        assert_eq!(wrong.apply(&preset, 1).unwrap_err().exit_code(), 2);
    }
}
