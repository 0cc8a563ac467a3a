//! The largest batch that fits.

use super::dry_run::Kernels;
use super::memory::{Memory, Phase};
use super::workload::Workload;

/// No batch is larger.
const MOST: usize = 1 << 16;

/// What training and checkpoints need with `batch` images, in bytes.
fn need(workload: &Workload, batch: usize, kernels: Kernels) -> usize {
    let step = workload.model.step(&workload.largest(batch), kernels);
    let memory = Memory::new(workload, batch, &step, kernels);
    let training = memory
        .phases
        .iter()
        .filter(|need| matches!(need.phase, Phase::Training | Phase::Checkpoint));
    training.map(|need| need.bytes).max().unwrap_or(0)
}

/// The largest batch in training that needs at most `free` bytes; none if not even one image does.
pub fn largest_batch(workload: &Workload, free: usize, kernels: Kernels) -> Option<usize> {
    let most = workload.items.unwrap_or(MOST).clamp(1, MOST);
    largest(most, |batch| need(workload, batch, kernels) <= free)
}

/// The largest number up to `most` for which `fits`, which must hold for all that are smaller.
pub fn largest(most: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    if !fits(1) {
        return None;
    }
    let (mut low, mut high) = (1, most + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match fits(middle) {
            true => low = middle,
            false => high = middle,
        }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_found_or_none() {
        assert_eq!(largest(1000, |batch| batch <= 37), Some(37));
        assert_eq!(largest(10, |_| true), Some(10));
        assert_eq!(largest(10, |_| false), None);
    }
}
