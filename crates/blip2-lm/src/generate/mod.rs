//! From a prefix to token ids: greedy search, sampling, beam search.

mod beam;
mod config;
mod decode;
mod logits;
mod sample;

use burn::tensor::{Int, Tensor};

pub use config::GenerationConfig;

use crate::{CausalLm, LmError};

/// One generated text.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The new tokens only, the end token included if it was produced.
    pub token_ids: Vec<u32>,
    /// The sum of the tokens' log-probabilities; under beam search divided by
    /// length^`length_penalty`.
    pub score: f32,
}

/// Generates `num_return_sequences` texts for each row, best first.
///
/// The prefix runs through the model once a row, however many beams there are. Rows do not
/// influence each other.
///
/// # Shapes
/// - `inputs_embeds`: `[batch, tokens, embed]`
/// - `attention_mask`: `[batch, tokens]`; padding only on the left
///
/// # Errors
///
/// An impossible `config`, a text longer than the model's positions, or non-finite logits.
pub fn generate(
    lm: &impl CausalLm,
    inputs_embeds: Tensor<3>,
    attention_mask: Tensor<2, Int>,
    config: &GenerationConfig,
) -> Result<Vec<Vec<Hypothesis>>, LmError> {
    config.validate()?;
    let [_, tokens, _] = inputs_embeds.dims();
    let needed = tokens + config.max_new_tokens;
    if needed > lm.max_positions() {
        return Err(LmError::TooManyPositions {
            needed,
            available: lm.max_positions(),
        });
    }
    // Nothing here is trained.
    let (inputs_embeds, attention_mask) = (inputs_embeds.inner(), attention_mask.inner());
    if config.num_beams > 1 {
        beam::search(lm, inputs_embeds, attention_mask, config)
    } else {
        sample::search(lm, inputs_embeds, attention_mask, config)
    }
}
