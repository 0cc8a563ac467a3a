//! Products of a few rows with weights that are kept in bfloat16: each weight is read once, from where it
//! lies, and meets the rows in the registers.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_maskz_loadu_epi16, _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_storeu_ps, _mm512_unpackhi_epi16, _mm512_unpacklo_epi16,
};

use burn::tensor::bf16;
use rayon::prelude::*;

use super::super::few_rows::in_rows;
use super::super::matrix::{Matrix, Threads};
use super::super::tiles::LANES;
use super::pack::Left;
use super::tile::bfloats;

/// Numbers of a vector.
const NUMBERS: usize = 2 * LANES;
/// The most columns of a task: their sums stay in a core's first cache.
const COLUMNS: usize = 512;
/// Pairs of rows of weights that are added at once.
const PAIRS: usize = 4;
/// Rows that share one look at a weight.
const GROUP: usize = 8;
/// Weights that one task reads.
const TASK: usize = 1 << 16;

/// `x · weight`: rows of `inputs` numbers and `[inputs, outputs]`. Only where
/// [`available`](super::available).
pub fn forward(x: &[f32], weight: &[bf16], [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let left = Left::new(Matrix::dense(x, inputs), Threads::One);
    let rows = x.len() / inputs;
    let tasks = 2 * rayon::current_num_threads();
    let columns = outputs
        .div_ceil(tasks)
        .next_multiple_of(NUMBERS)
        .min(COLUMNS);
    let parts: Vec<Vec<f32>> = (0..outputs.div_ceil(columns))
        .into_par_iter()
        .map(|part| {
            let first = part * columns;
            let count = columns.min(outputs - first);
            let mut sums = vec![0.0; rows * count.next_multiple_of(NUMBERS)];
            // SAFETY: whoever calls this has asked whether the processor can.
            unsafe { add_scaled(&left, weight, outputs, first, count, &mut sums) };
            sums
        })
        .collect();
    let mut out = vec![0.0; rows * outputs];
    for (part, sums) in parts.iter().enumerate() {
        let first = part * columns;
        let count = columns.min(outputs - first);
        let lines = sums.chunks_exact(sums.len() / rows.max(1));
        for (sums, out) in lines.zip(out.chunks_exact_mut(outputs)) {
            for (column, out) in out[first..first + count].iter_mut().enumerate() {
                *out = sums[place(column)];
            }
        }
    }
    out
}

/// Where the sum of a column is: [`add_scaled`] interleaves rows within quarters of a vector, so the first
/// half of each eight columns comes before the second half of all.
fn place(column: usize) -> usize {
    let (block, column) = (column / NUMBERS * NUMBERS, column % NUMBERS);
    let (eight, column) = (column / 8, column % 8);
    block + column / 4 * LANES + eight * 4 + column % 4
}

/// Adds the products of all rows with `count` columns from `first` on to `sums`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn add_scaled(
    left: &Left,
    weight: &[bf16],
    outputs: usize,
    first: usize,
    count: usize,
    sums: &mut [f32],
) {
    let inputs = weight.len() / outputs;
    let stride = count.next_multiple_of(NUMBERS);
    for word in (0..left.count).step_by(PAIRS) {
        for column in (0..count).step_by(NUMBERS) {
            let len = (count - column).min(NUMBERS);
            // What lies beyond the last input is zero.
            let row = |index: usize| match index < inputs {
                true => load(&weight[index * outputs + first + column..][..len]),
                false => _mm512_setzero_si512(),
            };
            let mut low = [_mm512_setzero_si512(); PAIRS];
            let mut high = [_mm512_setzero_si512(); PAIRS];
            for pair in 0..PAIRS {
                let (even, odd) = (row(2 * (word + pair)), row(2 * (word + pair) + 1));
                low[pair] = _mm512_unpacklo_epi16(even, odd);
                high[pair] = _mm512_unpackhi_epi16(even, odd);
            }
            let words = left.words.chunks_exact(left.count);
            for (words, sums) in words.zip(sums.chunks_exact_mut(stride)) {
                let sums = &mut sums[column..column + NUMBERS];
                // SAFETY: these are two vectors.
                let mut both = unsafe {
                    [
                        _mm512_loadu_ps(sums.as_ptr()),
                        _mm512_loadu_ps(sums.as_ptr().add(LANES)),
                    ]
                };
                for (pair, word) in words[word..].iter().take(PAIRS).enumerate() {
                    let x = bfloats(_mm512_set1_epi32(word.cast_signed()));
                    both[0] = _mm512_dpbf16_ps(both[0], x, bfloats(low[pair]));
                    both[1] = _mm512_dpbf16_ps(both[1], x, bfloats(high[pair]));
                }
                // SAFETY: as above.
                unsafe {
                    _mm512_storeu_ps(sums.as_mut_ptr(), both[0]);
                    _mm512_storeu_ps(sums.as_mut_ptr().add(LANES), both[1]);
                }
            }
        }
    }
}

/// Up to thirty-two numbers; zeros follow.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(numbers: &[bf16]) -> __m512i {
    let mask = u32::MAX.checked_shr(32 - numbers.len().min(NUMBERS) as u32);
    // SAFETY: what is masked out is not read; the rest is in the slice.
    unsafe { _mm512_maskz_loadu_epi16(mask.unwrap_or(0), numbers.as_ptr().cast()) }
}

/// `x · weightᵀ`: rows of `inputs` numbers and `[outputs, inputs]`. Only where
/// [`available`](super::available).
pub fn forward_transposed(x: &[f32], weight: &[bf16], [outputs, inputs]: [usize; 2]) -> Vec<f32> {
    let rows = x.len() / inputs;
    // Whole vectors of words.
    let wide = inputs.next_multiple_of(NUMBERS);
    let mut padded = vec![0.0; rows * wide];
    for (padded, x) in padded.chunks_exact_mut(wide).zip(x.chunks_exact(inputs)) {
        padded[..inputs].copy_from_slice(x);
    }
    let left = Left::new(Matrix::dense(&padded, wide), Threads::One);
    let task = (TASK / inputs).max(1);
    // `[outputs, rows]`, so that each task has a part of its own.
    let mut dots = vec![0.0; outputs * rows];
    dots.par_chunks_mut(task * rows)
        .zip(weight.par_chunks(task * inputs))
        .for_each(|(dots, weights)| {
            let outputs = dots.chunks_exact_mut(rows);
            for (weights, dots) in weights.chunks_exact(inputs).zip(outputs) {
                let groups = dots.chunks_mut(GROUP);
                for (words, dots) in left.words.chunks(GROUP * left.count).zip(groups) {
                    // SAFETY: whoever calls this has asked whether the processor can.
                    unsafe {
                        match dots.len() {
                            1 => group::<1>(words, weights, dots),
                            2 => group::<2>(words, weights, dots),
                            3 => group::<3>(words, weights, dots),
                            4 => group::<4>(words, weights, dots),
                            5 => group::<5>(words, weights, dots),
                            6 => group::<6>(words, weights, dots),
                            7 => group::<7>(words, weights, dots),
                            _ => group::<GROUP>(words, weights, dots),
                        }
                    }
                }
            }
        });
    in_rows(&dots, rows)
}

/// The products of `ROWS` rows with one row of weights.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn group<const ROWS: usize>(words: &[u32], weights: &[bf16], dots: &mut [f32]) {
    let count = words.len() / ROWS;
    let mut sums: [__m512; ROWS] = [_mm512_setzero_ps(); ROWS];
    for (block, weights) in weights.chunks(NUMBERS).enumerate() {
        let weights = bfloats(load(weights));
        for (row, sum) in sums.iter_mut().enumerate() {
            let x = &words[row * count + block * LANES..][..LANES];
            // SAFETY: sixteen words are one vector.
            let x = bfloats(unsafe { _mm512_loadu_si512(x.as_ptr().cast()) });
            *sum = _mm512_dpbf16_ps(*sum, x, weights);
        }
    }
    for (sum, dot) in sums.into_iter().zip(dots) {
        *dot = _mm512_reduce_add_ps(sum);
    }
}
