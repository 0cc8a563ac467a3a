//! The samples of an annotation file in their order, from any position on.

use std::sync::Arc;

use rand::seq::SliceRandom;

use super::rng;
use crate::batch::CaptionChoice;
use crate::sample::Sample;

/// Reads items in order; in each pass over the samples they come in another order.
pub(super) struct SplitCursor {
    /// (sample, caption) of each item; the caption is chosen later where it is none.
    items: Vec<(usize, Option<usize>)>,
    source: usize,
    seed: u64,
    pass: Option<u64>,
    order: Vec<u32>,
}

impl SplitCursor {
    /// The items that `choice` makes of `samples`, as the source at place `source`.
    pub fn new(
        samples: &Arc<Vec<Sample>>,
        choice: CaptionChoice,
        source: usize,
        seed: u64,
    ) -> Self {
        Self {
            items: choice.items(samples),
            source,
            seed,
            pass: None,
            order: Vec::new(),
        }
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items from position `from` on, `count` of them.
    pub fn take(&mut self, from: u64, count: u64) -> Vec<(usize, Option<usize>)> {
        let length = self.items.len() as u64;
        (from..from + count)
            .map(|position| {
                self.begin(position / length);
                self.items[self.order[(position % length) as usize] as usize]
            })
            .collect()
    }

    fn begin(&mut self, pass: u64) {
        if self.pass == Some(pass) {
            return;
        }
        self.order = (0..self.items.len() as u32).collect();
        self.order
            .shuffle(&mut rng::of_shards(self.seed, self.source, pass));
        self.pass = Some(pass);
    }
}
