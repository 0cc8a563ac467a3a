//! Batches in parts, one for each of several devices.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;

use super::{BatchSource, PrefetchLoader};
use crate::DataError;

/// A source whose batches come in parts, each made on a device of its own.
///
/// The parts together hold the items of the batch in their order, and their sizes differ by one at
/// most. A batch of fewer items than devices has fewer parts.
pub struct Parts<S> {
    source: Arc<S>,
    devices: Vec<Device>,
}

impl<S: BatchSource> BatchSource for Parts<S> {
    type Batch = Vec<S::Batch>;

    fn num_items(&self) -> usize {
        self.source.num_items()
    }

    fn batch(
        &self,
        epoch: usize,
        items: &[usize],
        _device: &Device,
    ) -> Result<Vec<S::Batch>, DataError> {
        let parts: Result<Vec<_>, _> = pieces(items, self.devices.len())
            .zip(&self.devices)
            .map(|(items, device)| self.source.batch(epoch, items, device))
            .collect();
        match (parts, &self.devices[..]) {
            // All items of a part may have been left out, which is no error of the batch.
            (Err(_), [first, _, ..]) => Ok(vec![self.source.batch(epoch, items, first)?]),
            (parts, _) => parts,
        }
    }
}

/// `items` in `parts` pieces that differ by one item at most, without empty ones.
fn pieces(items: &[usize], parts: usize) -> impl Iterator<Item = &[usize]> {
    let (size, longer) = (items.len() / parts.max(1), items.len() % parts.max(1));
    let start = move |part: usize| part * size + part.min(longer);
    (0..parts)
        .map(move |part| &items[start(part)..start(part + 1)])
        .filter(|piece| !piece.is_empty())
}

impl<S: BatchSource> PrefetchLoader<S> {
    /// The same batches in the same order, each in one part for each of `devices`. It starts where this
    /// loader stands, and has its own position from there on.
    pub fn in_parts(&self, devices: &[Device]) -> PrefetchLoader<Parts<S>> {
        let position = *self.position.lock().unwrap_or_else(PoisonError::into_inner);
        PrefetchLoader {
            source: Arc::new(Parts {
                source: self.source.clone(),
                devices: devices.to_vec(),
            }),
            options: self.options.clone(),
            device: self.device.clone(),
            range: self.range.clone(),
            position: Arc::new(Mutex::new(position)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_keep_the_order_and_differ_by_one_item_at_most() {
        let items = [4, 2, 7, 1, 9];
        let cut = |parts| pieces(&items, parts).map(<[usize]>::to_vec).collect();
        let found: Vec<Vec<usize>> = cut(2);
        assert_eq!(found, [vec![4, 2, 7], vec![1, 9]]);
        for parts in 1..8 {
            let found: Vec<Vec<usize>> = cut(parts);
            assert_eq!(found.concat(), items, "{parts}");
            assert_eq!(found.len(), parts.min(items.len()));
            let sizes = || found.iter().map(Vec::len);
            assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
        }
        assert_eq!(pieces(&[], 2).count(), 0);
    }
}
