//! Writing text with a [`CausalLm`]: greedy, beam search, sampling.
//!
//! Token ids are those of transformers' `generate(inputs_embeds=…)`, with one difference. A row's
//! result never depends on the other rows of its batch; transformers 5.23 exempts the first tokens
//! of left-padded rows from the repetition penalty.

mod beam;
mod config;
mod logits;
mod sample;
mod session;
mod stop;

use burn::tensor::{Int, Tensor};

pub use config::GenerationConfig;

use crate::{CausalLm, LmError};

/// A text that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The new tokens, with the token that ended the text if there was one.
    pub token_ids: Vec<u32>,
    /// With beam search, the sum of the tokens' log-probabilities (after repetition penalty and
    /// bans) divided by `tokens ^ length_penalty`: transformers' `sequences_scores`. Else the sum
    /// of the model's own log-probabilities.
    pub score: f32,
}

/// Continues each row of a batch: for each row, `num_return_sequences` texts, the best first
/// (samples in the order drawn).
///
/// Rows are independent: a batch gives what its rows alone give, up to rounding, and a row that is
/// done costs nothing more. Weights that are tracked for training are still recorded: give
/// `model.valid()` then.
///
/// # Shapes
/// - `inputs_embeds`: `[batch, tokens, hidden_size]`
/// - `attention_mask`: `[batch, tokens]`, 1 for a token and 0 for padding on either side
///
/// # Errors
///
/// On a config that can't work, shapes that don't fit, a row of padding only, more tokens than the
/// model has positions, and logits that are not finite.
pub fn generate(
    lm: &impl CausalLm,
    inputs_embeds: Tensor<3>,
    attention_mask: Tensor<2, Int>,
    config: &GenerationConfig,
) -> Result<Vec<Vec<Hypothesis>>, LmError> {
    generate_after(lm, inputs_embeds, attention_mask, &[], config)
}

/// As [`generate`], where the ids of the prompts count as written: for the repetition penalty and
/// for n-grams that are not to be repeated. transformers does so where it is given `input_ids`
/// beside `inputs_embeds`, as its BLIP-2 does.
///
/// - `prompt_ids`: those of each row, without padding; or none at all
///
/// # Errors
///
/// As [`generate`].
pub fn generate_after(
    lm: &impl CausalLm,
    inputs_embeds: Tensor<3>,
    attention_mask: Tensor<2, Int>,
    prompt_ids: &[Vec<u32>],
    config: &GenerationConfig,
) -> Result<Vec<Vec<Hypothesis>>, LmError> {
    config.validate()?;
    config.validate_for(lm.vocab_size())?;
    // Nothing is learnt here: without this, each step would be recorded.
    let (inputs_embeds, attention_mask) = (inputs_embeds.inner(), attention_mask.inner());
    let (session, logits) = session::Session::prefill(
        lm,
        inputs_embeds,
        attention_mask,
        prompt_ids,
        config.max_new_tokens,
    )?;
    if config.num_beams == 1 {
        sample::decode(session, logits, config)
    } else {
        beam::decode(session, logits, config)
    }
}
