//! Numbers rounded to eight bits, four to a word.

use std::arch::x86_64::{
    __m512, __m512i, _mm_mask_storeu_epi8, _mm_set1_epi8, _mm_xor_si128, _mm512_add_epi32,
    _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi32_epi8,
    _mm512_cvtps_epi32, _mm512_maskz_loadu_ps, _mm512_max_epu32, _mm512_mul_ps, _mm512_or_si512,
    _mm512_reduce_max_epu32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
};

use rayon::prelude::*;

use super::super::tiles::{COLUMNS, LANES, mask};
use super::super::weights::Weights;

/// Numbers of a word.
const NUMBERS: usize = 4;
/// Rows that one task rounds.
const TASK: usize = 64;
/// The multiples that stand for numbers go from -127 to 127.
const LARGEST: f32 = 127.0;
/// Below this, numbers are taken for zeros: what they would be divided by has no reciprocal.
const TINY: f32 = 1e-30;

/// What a number whose largest neighbour is `largest` is multiplied with to be rounded. None that is not
/// finite stays unseen: its scale is not finite either.
fn factor(largest: f32) -> f32 {
    if largest < TINY {
        0.0
    } else {
        LARGEST / largest
    }
}

fn scale(largest: f32) -> f32 {
    if largest < TINY {
        0.0
    } else {
        largest / LARGEST
    }
}

/// The sizes of numbers as bits, which are in the same order; NaN is the largest.
#[inline]
#[target_feature(enable = "avx512f")]
fn sizes(numbers: __m512) -> __m512i {
    _mm512_and_si512(_mm512_castps_si512(numbers), _mm512_set1_epi32(i32::MAX))
}

/// The left side of a product: rows of words, and a scale for each row. A byte is 128 more than its multiple,
/// for the instruction wants no negative ones on this side.
#[derive(Debug)]
pub struct Left {
    pub words: Vec<u32>,
    /// Words of a row.
    pub count: usize,
    pub scales: Vec<f32>,
}

impl Left {
    /// Rounds rows of `columns` numbers. Only where the processor can.
    pub fn new(numbers: &[f32], columns: usize) -> Self {
        let count = columns.div_ceil(NUMBERS);
        let rows = numbers.len() / columns;
        let mut words = vec![0; rows * count];
        let mut scales = vec![0.0; rows];
        words
            .par_chunks_exact_mut(count)
            .zip(numbers.par_chunks_exact(columns))
            .zip(&mut scales)
            .with_min_len(TASK)
            .for_each(|((words, numbers), scale)| {
                // SAFETY: whoever calls this has asked whether the processor can.
                *scale = unsafe { round(numbers, words) };
            });
        Self {
            words,
            count,
            scales,
        }
    }
}

/// Rounds a row to `words`, and gives its scale.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn round(numbers: &[f32], words: &mut [u32]) -> f32 {
    assert_eq!(words.len(), numbers.len().div_ceil(NUMBERS));
    let mut largest = _mm512_setzero_si512();
    for numbers in numbers.chunks(LANES) {
        largest = _mm512_max_epu32(largest, sizes(load(numbers)));
    }
    let largest = f32::from_bits(_mm512_reduce_max_epu32(largest));
    let factor = _mm512_set1_ps(factor(largest));
    for (part, numbers) in numbers.chunks(LANES).enumerate() {
        let multiples = _mm512_cvtps_epi32(_mm512_mul_ps(load(numbers), factor));
        let bytes = _mm_xor_si128(_mm512_cvtepi32_epi8(multiples), _mm_set1_epi8(i8::MIN));
        // SAFETY: a vector's bytes are four words; the mask leaves out those beyond the last number.
        unsafe {
            let out = words.as_mut_ptr().add(part * LANES / NUMBERS);
            _mm_mask_storeu_epi8(out.cast(), mask(numbers.len()), bytes);
        }
    }
    scale(largest)
}

/// Up to sixteen numbers; zeros follow.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(numbers: &[f32]) -> __m512 {
    // SAFETY: what is masked out is not read; the rest is in the slice.
    unsafe { _mm512_maskz_loadu_ps(mask(numbers.len().min(LANES)), numbers.as_ptr()) }
}

/// Columns of the right side.
#[derive(Debug)]
pub struct Panel {
    /// `[words, vectors, LANES]`.
    pub words: Vec<u32>,
    /// What each column's sum has too much for the 128 on the left.
    pub excess: [i32; COLUMNS],
    pub scales: [f32; COLUMNS],
    wide: Vec<f32>,
}

impl Default for Panel {
    fn default() -> Self {
        Self {
            words: Vec::new(),
            excess: [0; COLUMNS],
            scales: [0.0; COLUMNS],
            wide: Vec::new(),
        }
    }
}

impl Panel {
    /// Rounds and packs `VECTORS` times sixteen columns from `first` on; zeros stand for columns that are
    /// not there.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub fn pack<const VECTORS: usize>(
        &mut self,
        weight: &Weights<'_>,
        shape: [usize; 2],
        first: usize,
    ) {
        let largest = self.widen::<VECTORS>(weight, shape, first);
        let mut factors = [_mm512_set1_ps(0.0); VECTORS];
        let mut sums = [_mm512_setzero_si512(); VECTORS];
        for (factors, largest) in factors.iter_mut().zip(largest.chunks_exact(LANES)) {
            let numbers: [f32; LANES] = std::array::from_fn(|lane| factor(largest[lane]));
            *factors = load(&numbers);
        }
        let width = VECTORS * LANES;
        self.words.resize(self.wide.len() / NUMBERS, 0);
        let words = self.words.chunks_exact_mut(width);
        for (words, rows) in words.zip(self.wide.chunks_exact(NUMBERS * width)) {
            for vector in 0..VECTORS {
                let mut word = _mm512_setzero_si512();
                for row in (0..NUMBERS).rev() {
                    let numbers = load(&rows[row * width + vector * LANES..]);
                    let multiples = _mm512_cvtps_epi32(_mm512_mul_ps(numbers, factors[vector]));
                    sums[vector] = _mm512_add_epi32(sums[vector], multiples);
                    let byte = _mm512_and_si512(multiples, _mm512_set1_epi32(0xff));
                    word = _mm512_or_si512(_mm512_slli_epi32::<8>(word), byte);
                }
                let words = &mut words[vector * LANES..][..LANES];
                // SAFETY: there is room for sixteen words.
                unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), word) };
            }
        }
        for (vector, sums) in sums.into_iter().enumerate() {
            let excess = &mut self.excess[vector * LANES..][..LANES];
            // SAFETY: there is room for sixteen sums.
            unsafe {
                _mm512_storeu_si512(excess.as_mut_ptr().cast(), _mm512_slli_epi32::<7>(sums));
            }
        }
        for (scale_of, largest) in self.scales.iter_mut().zip(largest) {
            *scale_of = scale(largest);
        }
    }

    /// Widens the columns into a room of their own, whole words of rows, and finds the largest number of
    /// each.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn widen<const VECTORS: usize>(
        &mut self,
        weight: &Weights<'_>,
        [inputs, outputs]: [usize; 2],
        first: usize,
    ) -> [f32; COLUMNS] {
        let width = VECTORS * LANES;
        let len = (outputs - first).min(width);
        let mut room = Vec::new();
        let mut largest = [_mm512_setzero_si512(); VECTORS];
        // What is there already is written over.
        self.wide
            .resize(inputs.next_multiple_of(NUMBERS) * width, 0.0);
        self.wide[inputs * width..].fill(0.0);
        for (input, line) in self.wide.chunks_exact_mut(width).take(inputs).enumerate() {
            let start = input * outputs + first;
            line[..len].copy_from_slice(weight.widened(start..start + len, &mut room));
            line[len..].fill(0.0);
            for (largest, numbers) in largest.iter_mut().zip(line.chunks_exact(LANES)) {
                *largest = _mm512_max_epu32(*largest, sizes(load(numbers)));
            }
        }
        let mut found = [0.0; COLUMNS];
        for (found, largest) in found.chunks_exact_mut(LANES).zip(largest) {
            // SAFETY: there is room for sixteen numbers.
            unsafe { _mm512_storeu_ps(found.as_mut_ptr(), _mm512_castsi512_ps(largest)) };
        }
        found
    }
}
