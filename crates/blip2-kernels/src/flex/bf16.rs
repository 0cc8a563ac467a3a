//! Products in bfloat16 with sums in f32, for processors with AVX-512 BF16.
//!
//! Both sides are rounded to bfloat16 and packed so that one instruction multiplies two numbers of a row
//! with two of each of sixteen columns.

#![expect(
    unsafe_code,
    reason = "vector loads, and a call that needs the processor's feature"
)]

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_setzero_ps, _mm512_storeu_ps,
};

use rayon::prelude::*;

use super::vector::{Vectorized, vectorized};
use super::weights::Weights;

/// Rows and vectors of columns of a tile: its sums fill 24 of 32 registers.
const ROWS: usize = 8;
const VECTORS: usize = 3;
const LANES: usize = 16;
const COLUMNS: usize = VECTORS * LANES;
/// Rows of one task.
const TASK: usize = 8 * ROWS;

/// Whether this processor multiplies bfloat16.
pub fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Two numbers rounded to bfloat16, the first in the lower half.
#[inline(always)]
fn pair(first: f32, second: f32) -> u32 {
    rounded(first) | rounded(second) << 16
}

/// The upper half of `x`, rounded to the nearest, of equals to the even one; NaN stays NaN.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { nearest }
}

/// `x · weight`: rows of `inputs` numbers and `[inputs, outputs]`. Only where [`available`].
pub fn forward(x: &[f32], weight: Weights<'_>, [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let packed = pack(inputs, outputs, |panel, first| {
        let columns = COLUMNS.min(outputs - first);
        let (mut room, mut next) = (Vec::new(), Vec::new());
        for (pair_index, pairs) in panel.chunks_exact_mut(COLUMNS).enumerate() {
            let row = |row: usize| row * outputs + first..row * outputs + first + columns;
            let upper = weight.widened(row(2 * pair_index), &mut room);
            let odd = 2 * pair_index + 1;
            let lower = match odd < inputs {
                true => weight.widened(row(odd), &mut next),
                false => &[0.0; COLUMNS][..columns],
            };
            vectorized(Interleave {
                pairs,
                upper,
                lower,
            });
        }
    });
    product(x, &packed, [inputs, outputs])
}

/// `x · weightᵀ`: rows of `inputs` numbers and `[outputs, inputs]`. Only where [`available`].
pub fn forward_transposed(
    x: &[f32],
    weight: Weights<'_>,
    [outputs, inputs]: [usize; 2],
) -> Vec<f32> {
    let packed = pack(inputs, outputs, |panel, first| {
        let mut room = Vec::new();
        for column in 0..COLUMNS.min(outputs - first) {
            let start = (first + column) * inputs;
            let numbers = weight.widened(start..start + inputs, &mut room);
            let pairs = panel.iter_mut().skip(column).step_by(COLUMNS);
            for (out, numbers) in pairs.zip(numbers.chunks(2)) {
                *out = pair(numbers[0], numbers.get(1).copied().unwrap_or(0.0));
            }
        }
    });
    product(x, &packed, [inputs, outputs])
}

struct Interleave<'a> {
    pairs: &'a mut [u32],
    upper: &'a [f32],
    lower: &'a [f32],
}

impl Vectorized for Interleave<'_> {
    #[inline(always)]
    fn run(self) {
        for ((out, upper), lower) in self.pairs.iter_mut().zip(self.upper).zip(self.lower) {
            *out = pair(*upper, *lower);
        }
    }
}

/// Columns in panels of [`COLUMNS`], each `[pairs of inputs, columns]`; `fill` gets a panel of zeros and
/// its first column.
fn pack(inputs: usize, outputs: usize, fill: impl Fn(&mut [u32], usize) + Sync) -> Vec<u32> {
    let panel = inputs.div_ceil(2) * COLUMNS;
    let mut packed = vec![0; outputs.div_ceil(COLUMNS) * panel];
    packed
        .par_chunks_mut(panel)
        .enumerate()
        .for_each(|(index, panel)| fill(panel, index * COLUMNS));
    packed
}

fn product(x: &[f32], packed: &[u32], [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let pairs = inputs.div_ceil(2);
    let mut out = vec![0.0; x.len() / inputs * outputs];
    out.par_chunks_mut(TASK * outputs)
        .zip(x.par_chunks(TASK * inputs))
        .for_each_init(
            || vec![0; TASK * pairs],
            |rows, (out, x)| {
                pack_rows(x, inputs, rows);
                let panels = packed.chunks_exact(pairs * COLUMNS);
                for (panel, first) in panels.zip((0..outputs).step_by(COLUMNS)) {
                    let columns = COLUMNS.min(outputs - first);
                    let tiles = rows.chunks_exact(ROWS * pairs);
                    for (rows, out) in tiles.zip(out.chunks_mut(ROWS * outputs)) {
                        let mut sums = [[0.0; COLUMNS]; ROWS];
                        // SAFETY: whoever calls this module has asked `available`.
                        unsafe { tile(rows, panel, &mut sums) };
                        for (sums, out) in sums.iter().zip(out.chunks_exact_mut(outputs)) {
                            out[first..first + columns].copy_from_slice(&sums[..columns]);
                        }
                    }
                }
            },
        );
    out
}

/// Rows in groups of [`ROWS`], each `[pairs of inputs, rows]`. What rows are lacking is left as it is.
fn pack_rows(x: &[f32], inputs: usize, packed: &mut [u32]) {
    struct Pairs<'a> {
        numbers: &'a [f32],
        out: &'a mut [u32],
    }
    impl Vectorized for Pairs<'_> {
        #[inline(always)]
        fn run(self) {
            for (out, numbers) in self.out.iter_mut().zip(self.numbers.chunks_exact(2)) {
                *out = pair(numbers[0], numbers[1]);
            }
        }
    }
    let pairs = inputs.div_ceil(2);
    let mut row = vec![0; pairs];
    for (index, numbers) in x.chunks_exact(inputs).enumerate() {
        vectorized(Pairs {
            numbers,
            out: &mut row,
        });
        if inputs % 2 == 1 {
            row[pairs - 1] = pair(numbers[inputs - 1], 0.0);
        }
        let group = &mut packed[index / ROWS * ROWS * pairs..][..ROWS * pairs];
        for (out, pair) in group.iter_mut().skip(index % ROWS).step_by(ROWS).zip(&row) {
            *out = *pair;
        }
    }
}

/// The sums of a tile: `rows` is `[pairs, ROWS]`, `columns` `[pairs, COLUMNS]`.
#[target_feature(enable = "avx512f,avx512bf16")]
fn tile(rows: &[u32], columns: &[u32], out: &mut [[f32; COLUMNS]; ROWS]) {
    let mut sums: [[__m512; VECTORS]; ROWS] = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for (rows, columns) in rows.chunks_exact(ROWS).zip(columns.chunks_exact(COLUMNS)) {
        let mut vectors = [bfloats(_mm512_set1_epi32(0)); VECTORS];
        for (vector, columns) in vectors.iter_mut().zip(columns.chunks_exact(LANES)) {
            // SAFETY: sixteen numbers of 32 bits are one vector.
            *vector = bfloats(unsafe { _mm512_loadu_si512(columns.as_ptr().cast()) });
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            let both = bfloats(_mm512_set1_epi32(row.cast_signed()));
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = _mm512_dpbf16_ps(*sum, both, vector);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        for (sum, out) in sums.iter().zip(out.chunks_exact_mut(LANES)) {
            // SAFETY: there is room for sixteen numbers.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *sum) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bfloats(vector: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without a meaning that could be broken.
    unsafe { std::mem::transmute(vector) }
}

#[cfg(test)]
mod tests {
    use burn::tensor::bf16;

    use super::*;

    #[test]
    fn numbers_are_rounded_as_the_crate_for_halves_does() {
        for bits in (0..u32::MAX - 4099).step_by(4099) {
            let x = f32::from_bits(bits);
            let found = bf16::from_bits(rounded(x) as u16);
            let expected = bf16::from_f32(x);
            assert!(found == expected || x.is_nan() && found.is_nan(), "{x}");
        }
    }
}
