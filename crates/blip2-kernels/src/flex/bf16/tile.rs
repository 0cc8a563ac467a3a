//! The inner loop of a product.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_si512,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps,
};
use std::ops::Range;

use super::super::tiles::{LANES, ROWS, mask};
use super::pack::{Left, Right};

/// Where a product goes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub numbers: *mut f32,
    pub row_stride: usize,
    /// Whether it is added to what is there.
    pub keep: bool,
    pub scale: f32,
}

// SAFETY: only `rows` writes through it, and whoever calls that on several threads gives each of them
// rows and columns of its own.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// The product of some rows of `left` with a panel of `right` from column `first` on, which is packed into
/// `panel`.
///
/// # Safety
///
/// `output` must be valid for writes to these rows and columns, and for reads if they are kept; `rows` must
/// lie in `left`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn rows<const VECTORS: usize>(
    output: Output,
    left: &Left,
    rows: Range<usize>,
    right: &Right<'_>,
    first: usize,
    panel: &mut Vec<u32>,
) {
    right.pack::<VECTORS>(first, panel);
    let columns = (right.columns - first).min(VECTORS * LANES);
    let scale = _mm512_set1_ps(output.scale);
    for row in rows.clone().step_by(ROWS) {
        let count = (rows.end - row).min(ROWS);
        // Rows that are not there are the last one again, and not written.
        let starts: [*const u32; ROWS] = std::array::from_fn(|index| {
            left.words[(row + index.min(count - 1)) * left.row_stride..].as_ptr()
        });
        // SAFETY: each of the rows has `count` words, `word_stride` apart, and the panel as many.
        let sums = unsafe { tile::<VECTORS>(starts, left.word_stride, panel) };
        for (index, sums) in sums.iter().enumerate().take(count) {
            // SAFETY: `output` is valid there; the mask leaves out columns that do not exist.
            unsafe {
                let line = output
                    .numbers
                    .add((row + index) * output.row_stride + first);
                for (vector, sum) in sums.iter().enumerate() {
                    let out = line.add(vector * LANES);
                    let mask = mask((columns - vector * LANES).min(LANES));
                    let mut sum = _mm512_mul_ps(*sum, scale);
                    if output.keep {
                        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, out));
                    }
                    _mm512_mask_storeu_ps(out, mask, sum);
                }
            }
        }
    }
}

/// The sums of a tile; `panel` is `[words, VECTORS, LANES]`.
///
/// # Safety
///
/// From each of `rows`, as many words as the panel has must be readable, `stride` apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const VECTORS: usize>(
    rows: [*const u32; ROWS],
    stride: usize,
    panel: &[u32],
) -> [[__m512; VECTORS]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for (word, columns) in panel.chunks_exact(VECTORS * LANES).enumerate() {
        let mut vectors = [bfloats(_mm512_set1_epi32(0)); VECTORS];
        for (vector, columns) in vectors.iter_mut().zip(columns.chunks_exact(LANES)) {
            // SAFETY: sixteen words are one vector.
            *vector = bfloats(unsafe { _mm512_loadu_si512(columns.as_ptr().cast()) });
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            // SAFETY: as for this function.
            let pair = unsafe { *row.add(word * stride) };
            let both = bfloats(_mm512_set1_epi32(pair.cast_signed()));
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = _mm512_dpbf16_ps(*sum, both, vector);
            }
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
pub fn bfloats(vector: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without a meaning that could be broken.
    unsafe { std::mem::transmute(vector) }
}
