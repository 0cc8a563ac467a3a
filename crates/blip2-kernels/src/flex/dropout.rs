//! Dropout of a tensor's numbers.

use rayon::prelude::*;

use super::vector::{Vectorized, task_len, vectorized};
use crate::DropoutSeed;

struct Scale<'a> {
    numbers: &'a mut [f32],
    first: u32,
    dropout: DropoutSeed,
}

impl Vectorized for Scale<'_> {
    #[inline(always)]
    fn run(self) {
        for (index, number) in self.numbers.iter_mut().enumerate() {
            *number *= self.dropout.factor(self.first.wrapping_add(index as u32));
        }
    }
}

/// Drops numbers in place and scales those that stay; a gradient likewise.
pub fn apply(numbers: &mut [f32], dropout: DropoutSeed) {
    let len = task_len(1);
    numbers
        .par_chunks_mut(len)
        .enumerate()
        .for_each(|(task, numbers)| {
            vectorized(Scale {
                numbers,
                first: (task * len) as u32,
                dropout,
            });
        });
}
