//! One step of decoding with the cache.

use burn::tensor::{Int, Tensor, TensorData};

use crate::{CausalLm, KvCache, LmError};

/// The model's state while it generates: cache, mask, and the tokens done.
pub(super) struct Decoder<'a, L> {
    lm: &'a L,
    cache: KvCache,
    mask: Tensor<2, Int>,
    step: usize,
}

impl<'a, L: CausalLm> Decoder<'a, L> {
    /// Runs the prefix once a row, then makes `copies` rows of each; returns the logits of the
    /// first new token, `batch · copies` rows.
    pub fn prefill(
        lm: &'a L,
        inputs_embeds: Tensor<3>,
        mask: Tensor<2, Int>,
        copies: usize,
    ) -> Result<(Self, Vec<Vec<f32>>), LmError> {
        let [batch, tokens, _] = inputs_embeds.dims();
        let mut cache = KvCache::new();
        let hidden = lm.forward(inputs_embeds, mask.clone(), Some(&mut cache));
        let logits = lm.logits(hidden.narrow(1, tokens - 1, 1));
        let mut decoder = Self {
            lm,
            cache,
            mask,
            step: 0,
        };
        let rows = decoder.read(logits)?;
        if copies > 1 {
            let copied: Vec<usize> = (0..batch)
                .flat_map(|row| std::iter::repeat_n(row, copies))
                .collect();
            decoder.select(&copied);
            let rows = copied.into_iter().map(|row| rows[row].clone()).collect();
            return Ok((decoder, rows));
        }
        Ok((decoder, rows))
    }

    /// Goes on with row `rows[i]` and its new token `ids[i]`; returns the next logits.
    pub fn advance(&mut self, rows: &[usize], ids: &[u32]) -> Result<Vec<Vec<f32>>, LmError> {
        let [batch, _] = self.mask.dims();
        // Most steps keep most rows, and then nothing needs to be copied.
        if rows.len() != batch || rows.iter().enumerate().any(|(index, &row)| index != row) {
            self.select(rows);
        }
        let device = self.mask.device();
        let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let shape = [ids.len(), 1];
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &device);
        let seen = Tensor::ones(shape, &device);
        self.mask = Tensor::cat(vec![self.mask.clone(), seen], 1);
        let embeds = self.lm.embed(ids);
        let hidden = self
            .lm
            .forward(embeds, self.mask.clone(), Some(&mut self.cache));
        self.step += 1;
        let logits = self.lm.logits(hidden);
        self.read(logits)
    }

    fn select(&mut self, rows: &[usize]) {
        self.cache.reorder(rows);
        let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let shape = [rows.len()];
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, shape), &self.mask.device());
        self.mask = self.mask.clone().select(0, rows);
    }

    /// `[batch, 1, vocabulary]` to the processor.
    fn read(&self, logits: Tensor<3>) -> Result<Vec<Vec<f32>>, LmError> {
        let [_, _, vocabulary] = logits.dims();
        let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(LmError::NonFiniteLogits {
                row: at / vocabulary,
                step: self.step,
            });
        }
        Ok(values.chunks(vocabulary).map(<[f32]>::to_vec).collect())
    }
}
