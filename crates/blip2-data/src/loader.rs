//! A prefetching data loader with one fixed order.
//!
//! Burn's own multi-threaded loader interleaves the batches of its workers as they finish, so two
//! runs see two orders. Here the order depends on the seed and the epoch alone, whatever the
//! number of workers, and a loader can start in the middle of an epoch: both are what an exact
//! resume needs.

mod parts;

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

pub use parts::Parts;

use crate::DataError;

/// Batches that each worker may hold ready.
const PREFETCH_PER_WORKER: usize = 2;

/// What a [`PrefetchLoader`] reads from: items by index, made into batches on a device.
pub trait BatchSource: Send + Sync + 'static {
    /// What one step of training or evaluation takes.
    type Batch: Send + 'static;

    /// The number of items of one epoch.
    fn num_items(&self) -> usize;

    /// Reads `items` (indices below [`num_items`](Self::num_items)) and makes them a batch.
    ///
    /// Whatever is random must depend on (seed, `epoch`, index) alone.
    ///
    /// # Errors
    ///
    /// If an item can't be read and the source does not skip such items.
    fn batch(
        &self,
        epoch: usize,
        items: &[usize],
        device: &Device,
    ) -> Result<Self::Batch, DataError>;
}

/// A source of which only the batches are known, so that one loader's type serves several.
impl<B: Send + 'static> BatchSource for Box<dyn BatchSource<Batch = B>> {
    type Batch = B;

    fn num_items(&self) -> usize {
        self.as_ref().num_items()
    }

    fn batch(&self, epoch: usize, items: &[usize], device: &Device) -> Result<B, DataError> {
        self.as_ref().batch(epoch, items, device)
    }
}

/// Where the next iterator starts: epochs count from 1, batches from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The first batch to read of that epoch, from 0.
    pub batch: usize,
}

/// How a [`PrefetchLoader`] cuts an epoch into batches.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Items a batch.
    pub batch_size: usize,
    /// Threads that read ahead; 0 reads in the calling thread.
    pub num_workers: usize,
    /// The seed of the order; none keeps the order of the source.
    pub shuffle: Option<u64>,
    /// Leaves out a last batch that is not full.
    pub drop_last: bool,
}

/// A data loader over a [`BatchSource`]; see the module's documentation.
pub struct PrefetchLoader<S> {
    source: Arc<S>,
    options: LoaderOptions,
    device: Device,
    range: Range<usize>,
    position: Arc<Mutex<Position>>,
}

impl<S> Clone for PrefetchLoader<S> {
    /// The clone shares the position.
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            options: self.options.clone(),
            device: self.device.clone(),
            range: self.range.clone(),
            position: self.position.clone(),
        }
    }
}

impl<S: BatchSource> PrefetchLoader<S> {
    /// A loader that makes its batches on `device`, from the start of epoch 1.
    pub fn new(source: Arc<S>, options: LoaderOptions, device: &Device) -> Self {
        let range = 0..source.num_items();
        Self {
            source,
            options,
            device: device.clone(),
            range,
            position: Arc::new(Mutex::new(Position { epoch: 1, batch: 0 })),
        }
    }

    /// The next iterator starts at `position`, the one after it at the following epoch's start.
    pub fn seek(&self, position: Position) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    /// Items that an epoch chooses from, those of a last batch that is left out included.
    pub fn epoch_items(&self) -> usize {
        self.range.len()
    }

    /// Batches of one whole epoch.
    pub fn num_batches(&self) -> usize {
        if self.options.drop_last {
            self.range.len() / self.options.batch_size
        } else {
            self.range.len().div_ceil(self.options.batch_size)
        }
    }

    fn plan(&self, epoch: usize) -> Plan {
        let order = self.options.shuffle.map(|seed| {
            let mut order: Vec<usize> = (0..self.source.num_items()).collect();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(epoch as u64);
            order.shuffle(&mut rng);
            order
        });
        Plan {
            order,
            range: self.range.clone(),
            batch_size: self.options.batch_size,
            batches: self.num_batches(),
        }
    }
}

/// The order of an epoch. Without shuffling it takes no memory: a stream's epoch may have any length.
struct Plan {
    order: Option<Vec<usize>>,
    range: Range<usize>,
    batch_size: usize,
    batches: usize,
}

impl Plan {
    /// Items of the batches before `batch`.
    fn before(&self, batch: usize) -> usize {
        (batch * self.batch_size).min(self.range.len())
    }

    /// The items of `batch`, in order.
    fn items(&self, batch: usize) -> Vec<usize> {
        let places =
            self.range.start + self.before(batch)..self.range.start + self.before(batch + 1);
        match &self.order {
            Some(order) => order[places].to_vec(),
            None => places.collect(),
        }
    }
}

impl<S: BatchSource> DataLoader<S::Batch> for PrefetchLoader<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<S::Batch> + 'a> {
        let start = {
            let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
            let start = *position;
            *position = Position {
                epoch: start.epoch + 1,
                batch: 0,
            };
            start
        };
        let plan = Arc::new(self.plan(start.epoch));
        let left = plan.batches.saturating_sub(start.batch);
        let workers = self.options.num_workers.min(left);
        let queues = (0..workers)
            .map(|worker| self.spawn(start, worker, workers, plan.clone()))
            .collect();
        Box::new(PrefetchIterator {
            loader: self,
            start,
            next: start.batch,
            plan,
            queues,
            failed: false,
        })
    }

    fn num_items(&self) -> usize {
        if self.options.drop_last {
            self.num_batches() * self.options.batch_size
        } else {
            self.range.len()
        }
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<S::Batch>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<S::Batch>> {
        let range = self.range.start + start..self.range.start + end.min(self.range.len());
        Arc::new(Self {
            range,
            position: Arc::new(Mutex::new(
                *self.position.lock().unwrap_or_else(PoisonError::into_inner),
            )),
            ..self.clone()
        })
    }
}

type Queue<B> = Receiver<Result<B, DataError>>;

impl<S: BatchSource> PrefetchLoader<S> {
    /// Worker `worker` of `workers` reads every `workers`-th batch, so that taking from the queues
    /// in turn gives the planned order.
    fn spawn(
        &self,
        start: Position,
        worker: usize,
        workers: usize,
        plan: Arc<Plan>,
    ) -> Queue<S::Batch> {
        let (sender, receiver) = sync_channel(PREFETCH_PER_WORKER);
        let (source, device) = (self.source.clone(), self.device.clone());
        thread::spawn(move || {
            for batch in (start.batch..plan.batches).skip(worker).step_by(workers) {
                let batch = source.batch(start.epoch, &plan.items(batch), &device);
                let failed = batch.is_err();
                // The iterator was dropped, or it stops at this error.
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        });
        receiver
    }
}

struct PrefetchIterator<'a, S: BatchSource> {
    loader: &'a PrefetchLoader<S>,
    start: Position,
    plan: Arc<Plan>,
    /// The batch that comes next.
    next: usize,
    queues: Vec<Queue<S::Batch>>,
    failed: bool,
}

impl<S: BatchSource> Iterator for PrefetchIterator<'_, S> {
    type Item = Result<S::Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next >= self.plan.batches {
            return None;
        }
        let batch = if self.queues.is_empty() {
            let items = self.plan.items(self.next);
            self.loader
                .source
                .batch(self.start.epoch, &items, &self.loader.device)
                .map_err(DatasetError::new)
        } else {
            match self.queues[(self.next - self.start.batch) % self.queues.len()].recv() {
                Ok(batch) => batch.map_err(DatasetError::new),
                Err(_) => Err(DatasetError::new(std::io::Error::other(
                    "a data worker panicked; its message is above",
                ))),
            }
        };
        self.next += 1;
        self.failed = batch.is_err();
        Some(batch)
    }
}

impl<S: BatchSource> DataLoaderIterator<S::Batch> for PrefetchIterator<'_, S> {
    fn progress(&self) -> Progress {
        let (processed, total) = (
            self.plan.before(self.next),
            self.plan.before(self.plan.batches),
        );
        Progress::new(processed, total, Some("images".to_string()))
    }
}

#[cfg(test)]
mod tests;
