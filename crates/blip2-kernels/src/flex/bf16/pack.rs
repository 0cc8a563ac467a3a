//! Numbers rounded to bfloat16, two to a word.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm256_maskz_loadu_epi16, _mm256_setzero_si256,
    _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_mask_storeu_epi32,
    _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_storeu_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use burn::tensor::bf16;
use rayon::prelude::*;

use super::super::matrix::{Matrix, Threads};
use super::super::tiles::{LANES, mask};

/// Rows that one task rounds.
const TASK: usize = 64;

/// Numbers as they lie in memory.
#[derive(Debug, Clone, Copy)]
pub enum Numbers<'a> {
    /// To be rounded.
    F32(&'a [f32]),
    /// As they are.
    BF16(&'a [bf16]),
}

impl Numbers<'_> {
    /// Up to sixteen numbers; zeros follow.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn sixteen(&self, start: usize, len: usize) -> __m256i {
        let mask = mask(len);
        match self {
            Self::F32(numbers) => {
                let numbers = &numbers[start..start + len];
                // SAFETY: what is masked out is not read; the rest is in the slice. Both types are 256
                // bits without a meaning that could be broken.
                unsafe {
                    let wide = _mm512_maskz_loadu_ps(mask, numbers.as_ptr());
                    std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(wide))
                }
            }
            Self::BF16(numbers) => {
                let numbers = &numbers[start..start + len];
                // SAFETY: as above.
                unsafe { _mm256_maskz_loadu_epi16(mask, numbers.as_ptr().cast()) }
            }
        }
    }

    /// Up to thirty-two numbers, which are sixteen words; zeros follow.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn thirty_two(&self, start: usize, len: usize) -> __m512i {
        match self {
            Self::F32(numbers) => {
                let numbers = &numbers[start..start + len];
                let lower = len.min(LANES);
                // SAFETY: as in `sixteen`.
                unsafe {
                    let second = numbers.as_ptr().add(lower);
                    let first = _mm512_maskz_loadu_ps(mask(lower), numbers.as_ptr());
                    let second = _mm512_maskz_loadu_ps(mask(len - lower), second);
                    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first))
                }
            }
            Self::BF16(numbers) => {
                let numbers = &numbers[start..start + len];
                let mask = u32::MAX.checked_shr(32 - len as u32).unwrap_or(0);
                // SAFETY: as in `sixteen`.
                unsafe { _mm512_maskz_loadu_epi16(mask, numbers.as_ptr().cast()) }
            }
        }
    }
}

/// Words of two rows' numbers, the first row's in the lower halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn interleaved(first: __m256i, second: __m256i) -> __m512i {
    let upper = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(second));
    _mm512_or_si512(_mm512_cvtepu16_epi32(first), upper)
}

/// The left side of a product, rounded. The word of a row and a pair of numbers stands at
/// `row * row_stride + word * word_stride`.
#[derive(Debug)]
pub struct Left {
    pub words: Vec<u32>,
    pub row_stride: usize,
    pub word_stride: usize,
    /// Words of a row.
    pub count: usize,
}

impl Left {
    /// Rounds `matrix`. Only where the processor can.
    pub fn new(matrix: Matrix<'_>, threads: Threads) -> Self {
        let count = matrix.columns.div_ceil(2);
        let dense = matrix.column_stride == 1;
        let mut words: Vec<u32> = Vec::with_capacity(matrix.rows * count);
        let len = if dense { count } else { matrix.rows };
        let spare = &mut words.spare_capacity_mut()[..matrix.rows * count];
        let round = |(line, out): (usize, &mut [std::mem::MaybeUninit<u32>])| {
            // SAFETY: whoever calls this has asked whether the processor can; and there are `len` words.
            unsafe {
                match dense {
                    true => round_row(matrix, line, out.as_mut_ptr().cast()),
                    false => round_pair(matrix, line, out.as_mut_ptr().cast()),
                }
            }
        };
        match threads {
            Threads::One => spare
                .chunks_exact_mut(len.max(1))
                .enumerate()
                .for_each(round),
            Threads::All => spare
                .par_chunks_exact_mut(len.max(1))
                .with_min_len(TASK)
                .enumerate()
                .for_each(round),
        }
        // SAFETY: each line of `len` words has been written.
        unsafe { words.set_len(matrix.rows * count) };
        Self {
            words,
            row_stride: if dense { count } else { 1 },
            word_stride: if dense { 1 } else { matrix.rows },
            count,
        }
    }
}

/// The words of a row whose numbers follow each other.
///
/// # Safety
///
/// `out` must have room for them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn round_row(matrix: Matrix<'_>, row: usize, out: *mut u32) {
    let numbers = Numbers::F32(matrix.numbers);
    for start in (0..matrix.columns).step_by(2 * LANES) {
        let len = (matrix.columns - start).min(2 * LANES);
        let words = numbers.thirty_two(row * matrix.row_stride + start, len);
        // SAFETY: the mask leaves out what lies beyond the row's last word.
        unsafe {
            _mm512_mask_storeu_epi32(out.add(start / 2).cast(), mask(len.div_ceil(2)), words);
        }
    }
}

/// One word of every row, where the rows' numbers follow each other.
///
/// # Safety
///
/// `out` must have room for them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn round_pair(matrix: Matrix<'_>, word: usize, out: *mut u32) {
    let numbers = Numbers::F32(matrix.numbers);
    let start = 2 * word * matrix.column_stride;
    let paired = 2 * word + 1 < matrix.columns;
    for row in (0..matrix.rows).step_by(LANES) {
        let len = (matrix.rows - row).min(LANES);
        let first = numbers.sixteen(start + row, len);
        let second = match paired {
            true => numbers.sixteen(start + matrix.column_stride + row, len),
            false => _mm256_setzero_si256(),
        };
        // SAFETY: the mask leaves out what lies beyond the last row.
        unsafe {
            _mm512_mask_storeu_epi32(out.add(row).cast(), mask(len), interleaved(first, second));
        }
    }
}

/// The right side of a product.
#[derive(Debug, Clone, Copy)]
pub struct Right<'a> {
    numbers: Numbers<'a>,
    /// Between rows, or between columns if those are dense.
    stride: usize,
    pub inner: usize,
    pub columns: usize,
    dense_columns: bool,
}

impl<'a> Right<'a> {
    /// `[inner, columns]`, rows one after the other.
    pub fn rows(numbers: Numbers<'a>, [inner, columns]: [usize; 2], stride: usize) -> Self {
        Self {
            numbers,
            stride,
            inner,
            columns,
            dense_columns: false,
        }
    }

    /// `[inner, columns]`, columns one after the other.
    pub fn columns(numbers: Numbers<'a>, [inner, columns]: [usize; 2], stride: usize) -> Self {
        Self {
            dense_columns: true,
            ..Self::rows(numbers, [inner, columns], stride)
        }
    }

    /// A matrix.
    pub fn of(matrix: Matrix<'a>) -> Self {
        let (numbers, shape) = (Numbers::F32(matrix.numbers), [matrix.rows, matrix.columns]);
        match matrix.column_stride {
            1 => Self::rows(numbers, shape, matrix.row_stride),
            stride => Self::columns(numbers, shape, stride),
        }
    }

    /// Packs `VECTORS` times sixteen columns from `first` on, `[words, VECTORS, LANES]`; zeros stand for
    /// columns that are not there.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub fn pack<const VECTORS: usize>(&self, first: usize, panel: &mut Vec<u32>) {
        panel.resize(self.inner.div_ceil(2) * VECTORS * LANES, 0);
        for vector in 0..VECTORS {
            let column = first + vector * LANES;
            let len = self.columns.saturating_sub(column).min(LANES);
            match self.dense_columns {
                true => self.transpose::<VECTORS>(column, len, vector, panel),
                false => self.interleave::<VECTORS>(column, len, vector, panel),
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn interleave<const VECTORS: usize>(
        &self,
        column: usize,
        len: usize,
        vector: usize,
        panel: &mut [u32],
    ) {
        for (word, out) in panel.chunks_exact_mut(VECTORS * LANES).enumerate() {
            let start = 2 * word * self.stride + column;
            let first = self.numbers.sixteen(start, len);
            let second = match 2 * word + 1 < self.inner {
                true => self.numbers.sixteen(start + self.stride, len),
                false => _mm256_setzero_si256(),
            };
            let out = &mut out[vector * LANES..][..LANES];
            // SAFETY: there is room for sixteen words.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), interleaved(first, second)) };
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn transpose<const VECTORS: usize>(
        &self,
        column: usize,
        len: usize,
        vector: usize,
        panel: &mut [u32],
    ) {
        let blocks = panel.chunks_mut(LANES * VECTORS * LANES);
        for (out, start) in blocks.zip((0..self.inner).step_by(2 * LANES)) {
            let count = (self.inner - start).min(2 * LANES);
            let mut words = [_mm512_setzero_si512(); LANES];
            for (index, words) in words.iter_mut().enumerate().take(len) {
                let start = (column + index) * self.stride + start;
                *words = self.numbers.thirty_two(start, count);
            }
            let rows = out.chunks_exact_mut(VECTORS * LANES);
            for (out, words) in rows.zip(transposed(words)) {
                let out = &mut out[vector * LANES..][..LANES];
                // SAFETY: there is room for sixteen words.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), words) };
            }
        }
    }
}

/// Sixteen vectors of sixteen words, transposed: first within blocks of four by four, then the blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut pairs = rows;
    for (pairs, rows) in pairs.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
        let low = [
            _mm512_unpacklo_epi32(rows[0], rows[1]),
            _mm512_unpacklo_epi32(rows[2], rows[3]),
        ];
        let high = [
            _mm512_unpackhi_epi32(rows[0], rows[1]),
            _mm512_unpackhi_epi32(rows[2], rows[3]),
        ];
        pairs[0] = _mm512_unpacklo_epi64(low[0], low[1]);
        pairs[1] = _mm512_unpackhi_epi64(low[0], low[1]);
        pairs[2] = _mm512_unpacklo_epi64(high[0], high[1]);
        pairs[3] = _mm512_unpackhi_epi64(high[0], high[1]);
    }
    // The quarter `q` of `pairs[4 * g + i]` is word `4 * q + i` of rows `4 * g..`.
    let mut words = pairs;
    for i in 0..4 {
        let [a, b, c, d] = [pairs[i], pairs[4 + i], pairs[8 + i], pairs[12 + i]];
        let even = [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d),
        ];
        let odd = [
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d),
        ];
        words[i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even[0], even[1]);
        words[8 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even[0], even[1]);
        words[4 + i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd[0], odd[1]);
        words[12 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd[0], odd[1]);
    }
    words
}
