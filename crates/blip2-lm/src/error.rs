//! What can go wrong in this crate.

use thiserror::Error;

/// An impossible configuration, an unusable prompt, or a model that produced no usable scores.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum LmError {
    /// A field has a value that can't work.
    #[error("field `{field}`: {reason}")]
    Field {
        /// The field of [`OptConfig`](crate::OptConfig) or
        /// [`GenerationConfig`](crate::GenerationConfig).
        field: &'static str,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A tensor doesn't have the shape that the others ask for.
    #[error("`{tensor}` has the shape {actual:?}, but {expected:?} is needed")]
    Shape {
        /// The argument's name.
        tensor: &'static str,
        /// The shape that fits the other arguments.
        expected: Vec<usize>,
        /// The shape that came.
        actual: Vec<usize>,
    },
    /// A row of the attention mask is all zeros: there is nothing to continue.
    #[error("row {row} of `attention_mask` has no 1: give each row a prompt of at least one token")]
    EmptyPrompt {
        /// The row of the batch.
        row: usize,
    },
    /// The model has no embedding for the last positions.
    #[error(
        "the prompt and the new tokens need {needed} positions and the model has {available}: \
         lower `max_new_tokens` or shorten the prompt"
    )]
    TooManyPositions {
        /// Tokens of the longest prompt and the new tokens that are fed back.
        needed: usize,
        /// The model's positions.
        available: usize,
    },
    /// The model gave NaN or infinite logits.
    #[error(
        "row {row}: the logits of new token {step} are not finite: \
         check the weights and the precision that the model runs in"
    )]
    NonFiniteLogits {
        /// The row of the batch.
        row: usize,
        /// The new token, from 0.
        step: usize,
    },
    /// The device could not hand a tensor back.
    #[error("can't read `{tensor}` from the device: {reason}")]
    Read {
        /// What was read.
        tensor: &'static str,
        /// The device's words.
        reason: String,
    },
}

impl LmError {
    pub(crate) fn field(field: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Field { field, reason }
    }
}
