//! The order of a stream: which sample stands at which position.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rand::seq::SliceRandom;

use super::mixture::Mixture;
use super::rng;
use super::shards::{Place, ShardCursor};
use super::split::SplitCursor;
use crate::DataError;

/// Positions whose places are kept beside the window that is read: those that all workers together
/// may have begun. One that is no longer kept is found again, which takes a scan of its shard.
const KEPT: u64 = 1 << 14;

/// What stands at a position.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// A sample of a shard of a source.
    Shard { source: u32, place: Place },
    /// A sample of an annotation file, and its caption if it is chosen already.
    Sample {
        source: u32,
        sample: u32,
        caption: Option<u32>,
    },
}

/// Reads a source in its order.
pub(super) enum Cursor {
    Shards(Box<ShardCursor>),
    Split(SplitCursor),
}

/// Positions are given out by windows of one length. A window holds the next samples of each source,
/// as many as its share, and puts them into an order of its own.
pub(super) struct Order {
    mixture: Mixture,
    window: u64,
    seed: u64,
    state: Mutex<State>,
}

struct State {
    cursors: Vec<Cursor>,
    /// The windows that were read last.
    windows: VecDeque<(u64, Arc<Vec<Item>>)>,
}

impl Order {
    /// Windows of `window` positions over `cursors`, a source each.
    ///
    /// # Errors
    ///
    /// Windows that are too short for the mixture.
    pub fn new(
        mixture: Mixture,
        cursors: Vec<Cursor>,
        window: u64,
        seed: u64,
    ) -> Result<Self, DataError> {
        let shortest = mixture.shortest_window();
        if window < shortest {
            return Err(DataError::Config {
                field: "data.stream.shuffle_window".into(),
                reason: format!(
                    "is {window}; with these weights it must be at least {shortest}, so that each \
                     window holds every source"
                ),
            });
        }
        let state = Mutex::new(State {
            cursors,
            windows: VecDeque::new(),
        });
        Ok(Self {
            mixture,
            window,
            seed,
            state,
        })
    }

    /// What stands at `positions`.
    ///
    /// # Errors
    ///
    /// As those of reading shards.
    pub fn at(&self, positions: impl Iterator<Item = u64>) -> Result<Vec<Item>, DataError> {
        let mut last: Option<(u64, Arc<Vec<Item>>)> = None;
        positions
            .map(|position| {
                let number = position / self.window;
                let window = match &last {
                    Some((known, window)) if *known == number => window,
                    _ => &last.insert((number, self.window(number)?)).1,
                };
                Ok(window[(position % self.window) as usize].clone())
            })
            .collect()
    }

    fn window(&self, number: u64) -> Result<Arc<Vec<Item>>, DataError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, window)) = state.windows.iter().find(|(known, _)| *known == number) {
            return Ok(window.clone());
        }
        let (start, end) = (number * self.window, (number + 1) * self.window);
        let mut items = Vec::with_capacity(self.window as usize);
        for (source, cursor) in state.cursors.iter_mut().enumerate() {
            let from = self.mixture.before(source, start);
            let count = self.mixture.before(source, end) - from;
            let source = source as u32;
            match cursor {
                Cursor::Shards(shards) => {
                    let places = shards.take(from, count)?.into_iter();
                    items.extend(places.map(|place| Item::Shard { source, place }));
                }
                Cursor::Split(split) => {
                    let samples = split.take(from, count).into_iter();
                    items.extend(samples.map(|(sample, caption)| Item::Sample {
                        source,
                        sample: sample as u32,
                        caption: caption.map(|caption| caption as u32),
                    }));
                }
            }
        }
        items.shuffle(&mut rng::of_window(self.seed, number));
        let window = Arc::new(items);
        state.windows.push_front((number, window.clone()));
        state.windows.truncate(2 + (KEPT / self.window) as usize);
        Ok(window)
    }
}
