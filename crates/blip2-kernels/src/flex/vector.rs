//! Loops that the compiler turns into vector instructions of the processor at hand.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Numbers that one task works on: a part of a core's cache. It is fixed, so that sums over tasks do
/// not depend on the number of threads.
const TASK: usize = 1 << 14;

/// Work on slices. Everything that `run` calls must be inlined into it.
pub trait Vectorized {
    /// Does it.
    fn run(self);
}

struct Run<W>(W);

impl<W: Vectorized> WithSimd for Run<W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        self.0.run();
    }
}

/// Does `work` with the widest vectors that there are.
pub fn vectorized(work: impl Vectorized) {
    Arch::new().dispatch(Run(work));
}

/// Numbers of whole rows that one task works on.
pub fn task_len(columns: usize) -> usize {
    (TASK / columns.max(1)).max(1) * columns.max(1)
}

/// Asks for the number at `index` to be brought near, if it exists: what is read in an order that the
/// processor does not guess.
#[inline(always)]
pub fn prefetch(numbers: &[f32], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(number) = numbers.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "an instruction of the processor")]
        // SAFETY: it reads nothing that could be seen.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(number).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (numbers, index);
}

/// Lanes of sums and maxima. Fixed, so that every processor adds in the same order.
pub const LANES: usize = 16;

/// The sum of `term(i)` over `0..len`.
#[inline(always)]
pub fn sum(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for (index, sum) in (whole..len).zip(&mut lanes) {
        *sum += term(index);
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// The largest of `numbers`; NaN is passed over.
#[inline(always)]
pub fn max(numbers: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = numbers.chunks_exact(LANES);
    let rest = chunks.remainder();
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    for chunk in chunks {
        for (max, &number) in lanes.iter_mut().zip(chunk) {
            *max = larger(*max, number);
        }
    }
    for (max, &number) in lanes.iter_mut().zip(rest) {
        *max = larger(*max, number);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// `e^x` within 2 units in the last place; 0 below −87, where numbers get denormal; NaN is kept.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    const HIGHEST: f32 = 88.0;
    /// Adding it rounds to a whole number, in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts: the first has few bits, so that its multiples are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let inside = x.clamp(LOWEST, HIGHEST);
    let shifted = inside * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = inside - whole * LN_2_HIGH - whole * LN_2_LOW;
    // Taylor's series; the rest is at most half of ln 2.
    let mut series = 1.0 / 5040.0;
    for coefficient in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        series = series * rest + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let power = f32::from_bits(exponent.wrapping_add(127) << 23);
    if x < LOWEST { 0.0 } else { series * power }
}

/// Sums the columns of `numbers`.
pub fn column_sums(numbers: &[f32], columns: usize) -> Vec<f32> {
    struct Add<'a> {
        rows: &'a [f32],
        sums: &'a mut [f32],
    }
    impl Vectorized for Add<'_> {
        #[inline(always)]
        fn run(self) {
            for row in self.rows.chunks_exact(self.sums.len()) {
                for (sum, number) in self.sums.iter_mut().zip(row) {
                    *sum += number;
                }
            }
        }
    }
    let parts: Vec<Vec<f32>> = numbers
        .par_chunks(task_len(columns))
        .map(|rows| {
            let mut sums = vec![0.0; columns];
            let work = Add {
                rows,
                sums: &mut sums,
            };
            vectorized(work);
            sums
        })
        .collect();
    let mut sums = vec![0.0; columns];
    for part in parts {
        for (sum, part) in sums.iter_mut().zip(part) {
            *sum += part;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_the_standard_library() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "{x}: {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_take_every_number() {
        let numbers: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!(sum(37, |i| numbers[i]), 666.0);
        assert_eq!(max(&numbers), 36.0);
        assert_eq!(max(&[-2.0, f32::NAN, -3.0]), -2.0);
        assert_eq!(column_sums(&numbers[..36], 3), [198.0, 210.0, 222.0]);
    }
}
