//! Which positions of a batch the caption cross-entropy scores.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// What `Blip2Caption::loss` returns: named losses, and what they are means of.
#[derive(Debug, Clone)]
pub struct Losses {
    /// The mean cross-entropy of the scored tokens, in nats; `[1]`.
    pub loss: Tensor<1>,
    /// The number of scored tokens.
    pub tokens: usize,
}

/// Which positions of a batch are scored, and the id that each must predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Flat indices into `[batch * positions]`: the hidden states that predict.
    pub positions: Vec<i64>,
    /// The ids to be predicted, one for each position.
    pub ids: Vec<i64>,
}

impl Targets {
    /// The hidden states that predict.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, positions, width]`
    /// - returns: `[scored, width]`
    pub fn select(&self, hidden: Tensor<3>) -> Tensor<2> {
        let positions = TensorData::new(self.positions.clone(), [self.positions.len()]);
        let positions = Tensor::<1, Int>::from_data(positions, &hidden.device().inner());
        hidden.flatten::<2>(0, 1).select(0, positions)
    }
}

/// Tokenised captions, padded on the right to the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextBatch {
    /// Row-major `[batch, length]`.
    pub input_ids: Vec<i64>,
    /// Row-major `[batch, length]`: 1 for text, 0 for padding.
    pub attention_mask: Vec<i64>,
    /// Rows.
    pub batch: usize,
    /// Columns.
    pub length: usize,
    /// Leading ids of each row that are not scored: BOS and the prompt.
    unscored: Vec<usize>,
    lengths: Vec<usize>,
}

impl TextBatch {
    /// Lays out `rows` of (ids with BOS first, number of leading ids that are not scored).
    pub fn new(rows: &[(Vec<u32>, usize)], pad_id: u32) -> Self {
        let batch = rows.len();
        let length = rows.iter().map(|(ids, _)| ids.len()).max().unwrap_or(0);
        let mut input_ids = vec![i64::from(pad_id); batch * length];
        let mut attention_mask = vec![0; batch * length];
        for (row, (ids, _)) in rows.iter().enumerate() {
            for (column, id) in ids.iter().enumerate() {
                input_ids[row * length + column] = i64::from(*id);
                attention_mask[row * length + column] = 1;
            }
        }
        Self {
            input_ids,
            attention_mask,
            batch,
            length,
            unscored: rows.iter().map(|(_, unscored)| *unscored).collect(),
            lengths: rows.iter().map(|(ids, _)| ids.len()).collect(),
        }
    }

    /// `[batch, length]` ids and mask on `device`.
    pub fn to_tensors(&self, device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
        let shape = [self.batch, self.length];
        let tensor = |values: &[i64]| {
            Tensor::<2, Int>::from_data(TensorData::new(values.to_vec(), shape), device)
        };
        (tensor(&self.input_ids), tensor(&self.attention_mask))
    }

    /// The scored positions when each row of text follows `prefix` query tokens.
    ///
    /// The hidden state before a token predicts it, so text column `c` is predicted at position
    /// `prefix + c - 1`. Padding, the prompt and BOS are not scored, except that BOS is where
    /// nothing of a row is marked as unscored (the last query then predicts it).
    pub fn targets(&self, prefix: usize) -> Targets {
        let (mut positions, mut ids) = (Vec::new(), Vec::new());
        for row in 0..self.batch {
            let first = self.unscored[row].max(usize::from(prefix == 0));
            for column in first..self.lengths[row] {
                let position = row * (prefix + self.length) + prefix + column - 1;
                positions.push(position as i64);
                ids.push(self.input_ids[row * self.length + column]);
            }
        }
        Targets { positions, ids }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows `[BOS p a b]` and `[BOS p a]` with the prompt `p` after 2 queries.
    #[test]
    fn targets_leave_out_padding_prompt_and_queries() {
        let text = TextBatch::new(&[(vec![2, 7, 8, 9], 2), (vec![2, 7, 5], 2)], 1);
        assert_eq!(text.input_ids, [2, 7, 8, 9, 2, 7, 5, 1]);
        assert_eq!(text.attention_mask, [1, 1, 1, 1, 1, 1, 1, 0]);
        let targets = text.targets(2);
        // Row 0 has positions 0..6: q q BOS p a b. "a" (4) is predicted at 3, "b" at 4.
        assert_eq!(targets.positions, [3, 4, 6 + 3]);
        assert_eq!(targets.ids, [8, 9, 5]);
    }

    #[test]
    fn last_query_predicts_bos_when_it_is_scored() {
        let text = TextBatch::new(&[(vec![2, 8], 0)], 1);
        assert_eq!(text.targets(2).positions, [1, 2]);
        assert_eq!(text.targets(2).ids, [2, 8]);
        assert_eq!(
            text.targets(0).ids,
            [8],
            "nothing stands before BOS without queries"
        );
    }
}
