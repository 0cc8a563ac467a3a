//! Activations and their slopes, on slices.

use rayon::prelude::*;

use super::vector::{Vectorized, exp, task_len, vectorized};
use crate::Activation;

/// The share of a normal distribution below `x`, and its density there; the first within 3e-7.
///
/// `t` is 1 / (1 + 0.4 z) for z = |x| / √2, and the series in it a minimax fit (relative error 3e-8 up
/// to z = 6.5) of erfc(z) · e^(z²) / t.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    const SERIES: [f32; 9] = [
        0.030_304_577,
        -0.084_952_62,
        -0.035_614_33,
        0.231_858_17,
        -0.025_517_678,
        0.241_273_21,
        0.188_686_69,
        0.228_458_06,
        0.225_503_96,
    ];
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.4 * z);
    let mut series = SERIES[0];
    for coefficient in &SERIES[1..] {
        series = series * t + coefficient;
    }
    let bell = exp(-0.5 * x * x);
    let tail = 0.5 * t * series * bell;
    // 1 / √(2π)
    let density = 0.398_942_3 * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, density)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

impl Activation {
    #[inline(always)]
    fn of(self, x: f32) -> f32 {
        match self {
            Self::None => x,
            Self::Gelu => x * normal(x).0,
            Self::QuickGelu => x * sigmoid(1.702 * x),
            // NaN stays NaN.
            Self::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
        }
    }

    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        match self {
            Self::None => 1.0,
            Self::Gelu => {
                let (below, density) = normal(x);
                below + x * density
            }
            Self::QuickGelu => {
                let sigmoid = sigmoid(1.702 * x);
                sigmoid * (1.0 + 1.702 * x * (1.0 - sigmoid))
            }
            Self::Relu => f32::from(x > 0.0),
        }
    }
}

/// A match outside of the loops, so that each has one activation to be vectorized for.
macro_rules! for_each_activation {
    ($activation:expr, $constant:ident => $work:expr) => {
        match $activation {
            Activation::None => {
                const $constant: Activation = Activation::None;
                $work
            }
            Activation::Gelu => {
                const $constant: Activation = Activation::Gelu;
                $work
            }
            Activation::QuickGelu => {
                const $constant: Activation = Activation::QuickGelu;
                $work
            }
            Activation::Relu => {
                const $constant: Activation = Activation::Relu;
                $work
            }
        }
    };
}

struct AddBias<'a> {
    rows: &'a mut [f32],
    bias: &'a [f32],
    activation: Activation,
}

impl Vectorized for AddBias<'_> {
    #[inline(always)]
    fn run(self) {
        for_each_activation!(self.activation, ACTIVATION => {
            for row in self.rows.chunks_exact_mut(self.bias.len()) {
                for (number, bias) in row.iter_mut().zip(self.bias) {
                    *number = ACTIVATION.of(*number + bias);
                }
            }
        });
    }
}

/// `activation(row + bias)` of every row, in place.
pub fn add_bias(rows: &mut [f32], bias: &[f32], activation: Activation) {
    rows.par_chunks_mut(task_len(bias.len())).for_each(|rows| {
        vectorized(AddBias {
            rows,
            bias,
            activation,
        });
    });
}

struct Apply<'a> {
    numbers: &'a [f32],
    out: &'a mut [f32],
    activation: Activation,
}

impl Vectorized for Apply<'_> {
    #[inline(always)]
    fn run(self) {
        for_each_activation!(self.activation, ACTIVATION => {
            for (out, number) in self.out.iter_mut().zip(self.numbers) {
                *out = ACTIVATION.of(*number);
            }
        });
    }
}

/// `activation(number)` of every number.
pub fn apply(numbers: &[f32], activation: Activation) -> Vec<f32> {
    let mut out = vec![0.0; numbers.len()];
    let len = task_len(1);
    out.par_chunks_mut(len)
        .zip(numbers.par_chunks(len))
        .for_each(|(out, numbers)| {
            vectorized(Apply {
                numbers,
                out,
                activation,
            });
        });
    out
}

struct Backward<'a> {
    grads: &'a mut [f32],
    numbers: &'a [f32],
    activation: Activation,
}

impl Vectorized for Backward<'_> {
    #[inline(always)]
    fn run(self) {
        for_each_activation!(self.activation, ACTIVATION => {
            for (grad, number) in self.grads.iter_mut().zip(self.numbers) {
                *grad *= ACTIVATION.slope(*number);
            }
        });
    }
}

/// Multiplies `grads` by the slopes at `numbers`.
pub fn backward(grads: &mut [f32], numbers: &[f32], activation: Activation) {
    let len = task_len(1);
    grads
        .par_chunks_mut(len)
        .zip(numbers.par_chunks(len))
        .for_each(|(grads, numbers)| {
            vectorized(Backward {
                grads,
                numbers,
                activation,
            });
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_functions() {
        for activation in [Activation::Gelu, Activation::QuickGelu, Activation::Relu] {
            for step in -600..600 {
                let x = step as f32 / 100.0 + 0.005;
                // Differences of f32 numbers 0.01 apart.
                let difference = (activation.of(x + 0.005) - activation.of(x - 0.005)) / 0.01;
                let slope = activation.slope(x);
                assert!((slope - difference).abs() < 2e-4, "{activation:?} {x}");
            }
            assert!(activation.of(f32::NAN).is_nan(), "{activation:?}");
        }
    }
}
