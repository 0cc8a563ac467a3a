//! One stream of random numbers for each thing that is put in order.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The order of a source's shards, or of its samples, in one pass.
pub(super) fn of_shards(seed: u64, source: usize, pass: u64) -> ChaCha8Rng {
    of(seed, 1 + source as u64, pass)
}

/// The order in one window.
pub(super) fn of_window(seed: u64, window: u64) -> ChaCha8Rng {
    of(seed, 0, window)
}

fn of(seed: u64, what: u64, number: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&what.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(number);
    rng
}
