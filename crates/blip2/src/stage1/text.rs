//! Captions as the Q-Former reads them.

use blip2_data::CaptionSample;
use blip2_data::tokenizer::BertTokenizer;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::Blip2Error;

/// Tokenised texts, padded on the right to the longest.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    rows: Vec<Vec<u32>>,
    length: usize,
    pad_id: u32,
}

/// `[CLS]` or `[DEC]` before a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// For reading.
    Cls,
    /// For writing: this id, in the place of `[CLS]`.
    Dec(u32),
}

impl Texts {
    /// # Errors
    ///
    /// If the tokenizer refuses a text.
    pub fn new<'a>(
        texts: impl Iterator<Item = &'a str>,
        tokenizer: &BertTokenizer,
        max_txt_len: usize,
    ) -> Result<Self, Blip2Error> {
        let rows = texts
            .map(|text| Ok(tokenizer.encode(text.trim(), max_txt_len)?))
            .collect::<Result<Vec<_>, Blip2Error>>()?;
        Ok(Self {
            length: rows.iter().map(Vec::len).max().unwrap_or(0),
            rows,
            pad_id: tokenizer.pad_id(),
        })
    }

    /// The captions that `samples` must have.
    ///
    /// # Errors
    ///
    /// A sample without text, or with an empty one.
    pub fn of_samples(
        samples: &[CaptionSample],
        tokenizer: &BertTokenizer,
        max_txt_len: usize,
    ) -> Result<Self, Blip2Error> {
        for sample in samples {
            if sample.text.as_deref().unwrap_or_default().trim().is_empty() {
                return Err(Blip2Error::Sample {
                    image_id: sample.image_id.clone(),
                    reason: "has no caption to learn".into(),
                });
            }
        }
        let texts = samples
            .iter()
            .map(|sample| sample.text.as_deref().unwrap_or_default());
        Self::new(texts, tokenizer, max_txt_len)
    }

    /// `[texts, length]` ids and attention mask of the texts at `indices`.
    pub fn tensors(
        &self,
        indices: impl Iterator<Item = usize> + Clone,
        first: First,
        device: &Device,
    ) -> (Tensor<2, Int>, Tensor<2, Int>) {
        let count = indices.clone().count();
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for index in indices {
            let row = &self.rows[index];
            for column in 0..self.length {
                let id = row.get(column).copied().unwrap_or(self.pad_id);
                ids.push(i64::from(match first {
                    First::Dec(dec) if column == 0 => dec,
                    _ => id,
                }));
                mask.push(i64::from(column < row.len()));
            }
        }
        let tensor =
            |values| Tensor::from_data(TensorData::new(values, [count, self.length]), device);
        (tensor(ids), tensor(mask))
    }

    /// All texts.
    pub fn all(&self, first: First, device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
        self.tensors(0..self.rows.len(), first, device)
    }

    /// Which positions of `[texts, length]` predict a word, and the words.
    pub fn next_words(&self) -> (Vec<i64>, Vec<i64>) {
        let (mut positions, mut ids) = (Vec::new(), Vec::new());
        for (index, row) in self.rows.iter().enumerate() {
            for (column, &id) in row.iter().enumerate().skip(1) {
                positions.push((index * self.length + column - 1) as i64);
                ids.push(i64::from(id));
            }
        }
        (positions, ids)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }
}
