//! Random numbers that can be drawn again.

use burn::tensor::{Device, Distribution, Tensor};

/// f32 holds 24 bits.
const RANGE: f64 = (1 << 24) as f64;

/// A place in the device's random numbers to which one can come back.
#[derive(Debug, Clone)]
pub struct Draws {
    device: Device,
    seed: u64,
}

impl Draws {
    /// A new place, drawn from `device`, which may have been given a seed.
    pub fn new(device: &Device) -> Self {
        let device = device.clone().inner();
        let seed = seed(&device);
        Self { device, seed }
    }

    /// Runs `work`, which draws the same random numbers each time. What is drawn afterwards does not depend
    /// on how many those were, and is not the same.
    pub fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        let after = seed(&self.device);
        self.device.seed(self.seed);
        let result = work();
        self.device.seed(after);
        result
    }
}

fn seed(device: &Device) -> u64 {
    let draws = Tensor::<1>::random([2], Distribution::Uniform(0.0, RANGE), device);
    let draws = draws.into_data();
    draws.iter::<f32>().fold(0, |seed, draw| {
        (seed << 24) | (draw as u64).min(RANGE as u64 - 1)
    })
}
