//! The samples of many shards in their order, from any position on.

use std::path::PathBuf;
use std::sync::Arc;

use rand::seq::SliceRandom;

use super::counts::CountFile;
use super::files::{OpenFiles, Shard};
use super::rng;
use super::shard::{Found, ShardSample, ShardScan};
use crate::DataError;
use crate::skips::{OnError, SkipLog};

/// Where a sample stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub shard: Arc<Shard>,
    pub sample: ShardSample,
}

/// A source's shards, as its reader needs them.
pub(super) struct Shards {
    /// The source's name and place in the stream.
    pub name: String,
    pub source: usize,
    pub seed: u64,
    pub list: Vec<Arc<Shard>>,
    /// Whether captions are read from `.json` alone.
    pub json_only: bool,
    pub files: Arc<OpenFiles>,
    pub skips: SkipLog,
    pub count_file: CountFile,
}

/// Reads places in order. In each pass over the source its shards come in another order; within a
/// shard samples come as they stand. Position and pass follow from the counts of the shards before,
/// so that a jump scans the shard that it leads to, and those that were never counted.
pub(super) struct ShardCursor {
    shards: Shards,
    /// Samples of each shard, where they are known.
    counts: Vec<Option<u64>>,
    /// The place that is read next, counted over all passes.
    position: u64,
    pass: u64,
    /// Where this pass began.
    pass_start: u64,
    /// The shards of this pass, and how many of them are behind.
    order: Vec<u32>,
    at: usize,
    /// The shard that is being read, and its samples so far.
    scan: Option<(ShardScan, u64)>,
}

impl ShardCursor {
    /// The start of the first pass.
    ///
    /// # Errors
    ///
    /// A shard that has changed since it was counted.
    pub fn new(shards: Shards) -> Result<Self, DataError> {
        let counts = shards.count_file.read(&shards.name, &shards.list)?;
        let mut cursor = Self {
            shards,
            counts,
            position: 0,
            pass: 0,
            pass_start: 0,
            order: Vec::new(),
            at: 0,
            scan: None,
        };
        cursor.begin(0);
        Ok(cursor)
    }

    /// The places from position `from` on, `count` of them.
    ///
    /// # Errors
    ///
    /// A shard that has changed, or shards without any sample; under [`OnError::Fail`] whatever is
    /// wrong with a shard.
    pub fn take(&mut self, from: u64, count: u64) -> Result<Vec<Place>, DataError> {
        if from != self.position {
            self.seek(from)?;
        }
        (0..count).map(|_| self.next()).collect()
    }

    fn seek(&mut self, to: u64) -> Result<(), DataError> {
        (self.position, self.pass_start) = (0, 0);
        self.begin(0);
        while self.position < to {
            let left = to - self.position;
            if self.at == 0
                && self.scan.is_none()
                && let Some(total) = self.counts.iter().copied().sum::<Option<u64>>()
                && total > 0
                && left >= total
            {
                self.position += left / total * total;
                self.begin(self.pass + left / total);
            } else if let Some(count) = self.count_ahead()
                && count <= left
            {
                self.position += count;
                self.at += 1;
            } else {
                self.next()?;
            }
        }
        Ok(())
    }

    /// Begins `pass` at the current position.
    fn begin(&mut self, pass: u64) {
        let shards = &self.shards;
        let mut rng = rng::of_shards(shards.seed, shards.source, pass);
        self.order = (0..shards.list.len() as u32).collect();
        self.order.shuffle(&mut rng);
        (self.pass, self.pass_start) = (pass, self.position);
        (self.at, self.scan) = (0, None);
    }

    /// The samples of the shard that comes next, if it is whole before us and they are known.
    fn count_ahead(&self) -> Option<u64> {
        if self.scan.is_some() {
            return None;
        }
        self.counts[*self.order.get(self.at)? as usize]
    }

    fn next(&mut self) -> Result<Place, DataError> {
        loop {
            if self.at == self.order.len() {
                if self.position == self.pass_start {
                    return Err(DataError::Config {
                        field: format!("data.stream.sources.{}", self.shards.name),
                        reason: "there is no usable sample in its shards".into(),
                    });
                }
                self.begin(self.pass + 1);
            }
            if self.count_ahead() == Some(0) {
                self.at += 1;
                continue;
            }
            let index = self.order[self.at] as usize;
            match self.scan(index)? {
                Some(sample) => {
                    self.position += 1;
                    let shard = self.shards.list[index].clone();
                    return Ok(Place { shard, sample });
                }
                None => {
                    let samples = self.scan.take().map_or(0, |(_, samples)| samples);
                    self.end_shard(index, samples)?;
                }
            }
        }
    }

    /// The next sample of the shard at `index`; none at its end.
    fn scan(&mut self, index: usize) -> Result<Option<ShardSample>, DataError> {
        let shards = &self.shards;
        let shard = &shards.list[index];
        let file = match shards.files.open(shard) {
            Err(error) => {
                let path = shard.path.display().to_string();
                shards.skips.leave_out(&path, error)?;
                return Ok(None);
            }
            Ok(file) => file,
        };
        let new = || (ShardScan::new(shard.size, shards.json_only), 0);
        let (scan, samples) = self.scan.get_or_insert_with(new);
        // What was counted once is what the order is made of.
        while self.counts[index] != Some(*samples) {
            match scan.next(&file) {
                Some(Found::Sample(sample)) => {
                    *samples += 1;
                    return Ok(Some(sample));
                }
                Some(Found::Problem(place, reason)) if shards.skips.on_error() == OnError::Skip => {
                    let what = format!("{}: {place}", shard.path.display());
                    shards.skips.add(&what, &reason);
                }
                Some(Found::Problem(place, reason)) => {
                    let shard = shard.path.clone();
                    return Err(DataError::Shard {
                        shard,
                        place,
                        reason,
                    });
                }
                None => break,
            }
        }
        Ok(None)
    }

    /// Goes on to the next shard; that at `index` had so many samples.
    fn end_shard(&mut self, index: usize, samples: u64) -> Result<(), DataError> {
        let (shards, shard) = (&self.shards, &self.shards.list[index]);
        match self.counts[index] {
            None => {
                shards.count_file.add(&shards.name, index, shard, samples);
                self.counts[index] = Some(samples);
            }
            Some(was) if was != samples => {
                return Err(DataError::ShardChanged {
                    shard: shard.path.clone(),
                    what: "its number of samples",
                    was,
                    now: samples,
                });
            }
            Some(_) => {}
        }
        self.at += 1;
        Ok(())
    }
}

/// The files of `paths` that are there; others are errors, or skipped as `skips` says.
///
/// # Errors
///
/// Under [`OnError::Fail`] the first that can't be looked at; a file that is named twice.
pub(super) fn list(paths: Vec<PathBuf>, skips: &SkipLog) -> Result<Vec<Arc<Shard>>, DataError> {
    let mut shards = Vec::with_capacity(paths.len());
    let mut seen = std::collections::HashSet::with_capacity(paths.len());
    for path in paths {
        if !seen.insert(path.clone()) {
            return Err(DataError::Config {
                field: "shards".into(),
                reason: format!("names {} twice", path.display()),
            });
        }
        match Shard::at(path.clone()) {
            Ok(shard) => shards.push(Arc::new(shard)),
            Err(error) if skips.on_error() == OnError::Skip => {
                skips.add(&path.display().to_string(), &error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(shards)
}
