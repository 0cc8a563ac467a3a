//! Feeding a model: the prompt once, then a token for each live row.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::{CausalLm, KvCache, LmError};

/// A model in the middle of writing. Its rows are texts (beams, samples), not rows of the batch.
pub(super) struct Session<'a, L: CausalLm> {
    lm: &'a L,
    cache: KvCache,
    rows: Vec<Row>,
    step: usize,
    device: Device,
    /// The prompt's precision, which new tokens take too.
    dtype: DType,
    /// The ids before each row of the batch, as far as they count as written.
    prompts: &'a [Vec<u32>],
}

/// A text that goes on.
#[derive(Clone)]
struct Row {
    /// The row of the batch that it belongs to.
    origin: usize,
    /// The prompt's mask; what was written since needs no mask.
    prompt_mask: std::rc::Rc<[i64]>,
}

/// Logits of the next token, for each row of a session.
pub(super) struct Logits {
    values: Vec<f32>,
    vocab_size: usize,
}

impl Logits {
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.vocab_size..][..self.vocab_size]
    }
}

impl<'a, L: CausalLm> Session<'a, L> {
    /// Runs the prompt. The session has one row for each row of the batch.
    pub(super) fn prefill(
        lm: &'a L,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        prompts: &'a [Vec<u32>],
        max_new_tokens: usize,
    ) -> Result<(Self, Logits), LmError> {
        let [batch, tokens, width] = inputs_embeds.dims();
        let shape = |tensor, expected: Vec<usize>, actual: Vec<usize>| match expected == actual {
            true => Ok(()),
            false => Err(LmError::Shape {
                tensor,
                expected,
                actual,
            }),
        };
        let (expected, actual) = (
            vec![batch, tokens, lm.hidden_size()],
            vec![batch, tokens, width],
        );
        shape("inputs_embeds", expected, actual)?;
        shape(
            "attention_mask",
            vec![batch, tokens],
            attention_mask.dims().to_vec(),
        )?;

        if !prompts.is_empty() {
            shape("prompt_ids", vec![batch], vec![prompts.len()])?;
        }
        let mask: Vec<i64> =
            attention_mask
                .clone()
                .try_into_vec_as()
                .map_err(|error| LmError::Read {
                    tensor: "attention_mask",
                    reason: error.to_string(),
                })?;
        let mut rows = Vec::with_capacity(batch);
        let mut last = Vec::with_capacity(batch);
        for row in 0..batch {
            let mask = &mask[row * tokens..][..tokens];
            let end = mask.iter().rposition(|&token| token != 0);
            let end = end.ok_or(LmError::EmptyPrompt { row })?;
            last.push((row * tokens + end) as i64);
            rows.push(Row {
                origin: row,
                prompt_mask: mask.into(),
            });
            // The last new token is not fed back.
            let used = mask.iter().filter(|&&token| token != 0).count();
            let needed = used + max_new_tokens - 1;
            if needed > lm.max_positions() {
                let available = lm.max_positions();
                return Err(LmError::TooManyPositions { needed, available });
            }
        }

        let (device, dtype) = (inputs_embeds.device(), inputs_embeds.dtype());
        let mut session = Self {
            lm,
            cache: KvCache::new(),
            rows,
            step: 0,
            device,
            dtype,
            prompts,
        };
        if batch == 0 {
            let (values, vocab_size) = (Vec::new(), lm.vocab_size());
            return Ok((session, Logits { values, vocab_size }));
        }
        let hidden = lm.forward(inputs_embeds, attention_mask, Some(&mut session.cache));
        let width = hidden.dims()[2];
        let last = Tensor::<1, Int>::from_data(TensorData::new(last, [batch]), &session.device);
        let last_hidden = hidden
            .reshape([batch * tokens, width])
            .select(0, last)
            .reshape([batch, 1, width]);
        let logits = session.read_logits(last_hidden)?;
        Ok((session, logits))
    }

    /// Feeds a token to each row of `parents` (which may repeat and drop rows). Row `i` then
    /// continues the former row `parents[i]` with `tokens[i]`.
    pub(super) fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Logits, LmError> {
        self.rows = parents
            .iter()
            .map(|&parent| self.rows[parent].clone())
            .collect();
        self.cache.reorder(parents);
        self.step += 1;

        let count = parents.len();
        let ids: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let total = self.cache.len() + 1;
        let mut mask = Vec::with_capacity(count * total);
        for row in &self.rows {
            mask.extend_from_slice(&row.prompt_mask);
            mask.resize(mask.len() + total - row.prompt_mask.len(), 1);
        }
        let int = |values: Vec<i64>, columns: usize| {
            Tensor::<2, Int>::from_data(TensorData::new(values, [count, columns]), &self.device)
        };
        let (ids, mask) = (int(ids, 1), int(mask, total));
        let embeds = self.lm.embed(ids).cast(self.dtype);
        let hidden = self.lm.forward(embeds, mask, Some(&mut self.cache));
        self.read_logits(hidden)
    }

    /// The row of the batch that row `row` of the session belongs to.
    pub(super) fn origin(&self, row: usize) -> usize {
        self.rows[row].origin
    }

    /// The ids before row `origin` of the batch that count as written.
    pub(super) fn prompt(&self, origin: usize) -> &'a [u32] {
        self.prompts.get(origin).map_or(&[], Vec::as_slice)
    }

    /// Rows of the session.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn read_logits(&self, hidden: Tensor<3>) -> Result<Logits, LmError> {
        let values: Vec<f32> =
            self.lm
                .logits(hidden)
                .try_into_vec_as()
                .map_err(|error| LmError::Read {
                    tensor: "logits",
                    reason: error.to_string(),
                })?;
        let vocab_size = self.lm.vocab_size();
        for (row, values) in values.chunks_exact(vocab_size).enumerate() {
            if !values.iter().all(|value| value.is_finite()) {
                let (row, step) = (self.origin(row), self.step);
                return Err(LmError::NonFiniteLogits { row, step });
            }
        }
        Ok(Logits { values, vocab_size })
    }
}
