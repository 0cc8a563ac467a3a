//! Dropout that keeps no mask: whether a number stays is a function of a seed and its place.

use burn::nn::Dropout;
#[cfg(feature = "flex")]
use burn::tensor::Distribution;
use burn::tensor::{Device, Tensor};

/// Which numbers are dropped.
#[cfg(feature = "flex")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutSeed {
    probability: f32,
    /// What a number that stays is multiplied by.
    scale: f32,
    seed: [u32; 2],
}

#[cfg(feature = "flex")]
impl DropoutSeed {
    /// Draws a seed from `device`, which may have been given one.
    pub(crate) fn draw(dropout: &Dropout, device: &Device) -> Self {
        // f32 holds 24 bits.
        let range = Distribution::Uniform(0.0, f64::from(1 << 24));
        let draws = Tensor::<1>::random([2], range, &device.clone().inner()).into_data();
        let mut draws = draws.iter::<f32>().map(|draw| draw as u32);
        let mut next = || draws.next().unwrap_or_default();
        Self {
            probability: dropout.prob as f32,
            scale: (1.0 / (1.0 - dropout.prob)) as f32,
            seed: [next(), next()],
        }
    }

    /// What the number at `index` is multiplied by.
    ///
    /// The mixer is C. Wellons' lowbias32, with a second word of the seed between its steps: with one
    /// word alone, all seeds would give the same draws in another order.
    #[inline(always)]
    pub(crate) fn factor(self, index: u32) -> f32 {
        let [first, second] = self.seed;
        let mut mixed = index ^ first;
        mixed = (mixed ^ (mixed >> 16)).wrapping_mul(0x7feb_352d) ^ second;
        mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x846c_a68b);
        mixed ^= mixed >> 16;
        let draw = (mixed >> 8) as f32 * (1.0 / 16_777_216.0);
        if draw >= self.probability {
            self.scale
        } else {
            0.0
        }
    }
}

/// Whether `dropout` drops anything of what is computed on `device`.
pub(crate) fn drops(dropout: &Dropout, device: &Device) -> bool {
    dropout.prob > 0.0 && dropout.training.is_enabled() && device.is_autodiff()
}

/// What `dropout` makes of `x`; on `flex` without a mask that is kept for the gradient.
pub fn dropout<const D: usize>(x: Tensor<D>, dropout: &Dropout) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if drops(dropout, &x.device()) && crate::fused::takes(&x) {
        let seed = DropoutSeed::draw(dropout, &x.device());
        return crate::fused::dropout(x, seed);
    }
    dropout.forward(x)
}
