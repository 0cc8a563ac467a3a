//! Keys and values of the tokens that a decoder has seen.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// A decoder's memory of earlier tokens, owned by whoever decodes.
#[derive(Debug, Clone, Default)]
pub struct KvCache {
    layers: Vec<LayerCache>,
}

/// One layer's keys and values.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    /// Key and value, each `[batch, tokens, hidden]`.
    state: Option<(Tensor<3>, Tensor<3>)>,
}

impl KvCache {
    /// An empty cache; it takes its size from the first forward.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens seen, padding included.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.dims()[1])
    }

    /// Whether no token was seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of the batch.
    pub fn batch(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.dims()[0])
    }

    /// The cache of layer `index`, made if it isn't there.
    pub fn layer(&mut self, index: usize) -> &mut LayerCache {
        if self.layers.len() <= index {
            self.layers.resize_with(index + 1, LayerCache::default);
        }
        &mut self.layers[index]
    }

    /// Makes row `i` the former row `rows[i]`. Rows may be dropped, repeated and moved.
    ///
    /// # Panics
    ///
    /// If a row is not in the cache.
    pub fn reorder(&mut self, rows: &[usize]) {
        let unchanged = rows.len() == self.batch() && rows.iter().enumerate().all(|(i, &r)| i == r);
        if unchanged {
            return;
        }
        let Some(device) = self.device() else { return };
        let indices: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let count = indices.len();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), &device);
        for layer in &mut self.layers {
            layer.state = layer.state.take().map(|(key, value)| {
                (
                    key.select(0, indices.clone()),
                    value.select(0, indices.clone()),
                )
            });
        }
    }

    /// Repeats each row `times` times, copies side by side: a prompt is computed once and then
    /// shared by the beams of its row.
    pub fn repeat_interleave(&mut self, times: usize) {
        let rows: Vec<usize> = (0..self.batch())
            .flat_map(|row| std::iter::repeat_n(row, times))
            .collect();
        self.reorder(&rows);
    }

    fn device(&self) -> Option<Device> {
        let (key, _) = self.layers.first()?.state.as_ref()?;
        Some(key.device())
    }
}

impl LayerCache {
    /// Adds new tokens and gives the keys and values of all tokens.
    ///
    /// # Shapes
    /// - `key`, `value`: `[batch, tokens, hidden]`
    /// - returns: `[batch, past + tokens, hidden]` twice
    pub fn append(&mut self, key: Tensor<3>, value: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let (key, value) = match self.state.take() {
            Some((past_key, past_value)) => (
                Tensor::cat(vec![past_key, key], 1),
                Tensor::cat(vec![past_value, value], 1),
            ),
            None => (key, value),
        };
        self.state = Some((key.clone(), value.clone()));
        (key, value)
    }

    fn dims(&self) -> [usize; 3] {
        self.state.as_ref().map_or([0; 3], |(key, _)| key.dims())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tokens, one channel: row `r` holds `r` and `r + 10` as key, negated as value.
    fn three_rows() -> KvCache {
        let key = Tensor::<3>::from_data(
            [[[0.0], [10.0]], [[1.0], [11.0]], [[2.0], [12.0]]],
            &Device::flex(),
        );
        let mut cache = KvCache::new();
        cache.layer(0).append(key.clone(), key.neg());
        cache
    }

    fn keys_and_values(cache: &mut KvCache) -> (Vec<f32>, Vec<f32>) {
        let (key, value) = cache.layers[0].state.clone().unwrap();
        (
            key.try_into_vec_as().unwrap(),
            value.try_into_vec_as().unwrap(),
        )
    }

    #[test]
    fn reorder_moves_repeats_and_drops_rows() {
        let mut cache = three_rows();
        assert_eq!((cache.len(), cache.batch()), (2, 3));
        cache.reorder(&[2, 0, 2, 2]);
        assert_eq!((cache.len(), cache.batch()), (2, 4));
        let (keys, values) = keys_and_values(&mut cache);
        assert_eq!(keys, [2.0, 12.0, 0.0, 10.0, 2.0, 12.0, 2.0, 12.0]);
        assert_eq!(values, keys.iter().map(|key| -key).collect::<Vec<_>>());
    }

    #[test]
    fn repeat_interleave_puts_copies_side_by_side() {
        let mut cache = three_rows();
        cache.repeat_interleave(2);
        let (keys, _) = keys_and_values(&mut cache);
        assert_eq!(
            keys,
            [
                0.0, 10.0, 0.0, 10.0, 1.0, 11.0, 1.0, 11.0, 2.0, 12.0, 2.0, 12.0
            ]
        );
    }

    #[test]
    fn an_empty_cache_stays_empty() {
        let mut cache = KvCache::new();
        cache.reorder(&[]);
        cache.repeat_interleave(3);
        assert!(cache.is_empty());
        assert_eq!(cache.batch(), 0);
    }
}
