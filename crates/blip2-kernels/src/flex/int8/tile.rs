//! The inner loop of a product.

use std::arch::x86_64::{
    __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_storeu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_sub_epi32,
};
use std::ops::Range;

use super::super::tiles::{LANES, ROWS, mask};
use super::super::weights::Weights;
use super::Output;
use super::pack::{Left, Panel};

/// The product of some rows of `left` with the columns of a weight of this shape from `first` on, which are
/// packed into `panel`.
///
/// # Safety
///
/// `output` must be valid for writes to these rows and columns; `rows` must lie in `left`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn rows<const VECTORS: usize>(
    output: Output,
    left: &Left,
    rows: Range<usize>,
    weight: &Weights<'_>,
    shape: [usize; 2],
    first: usize,
    panel: &mut Panel,
) {
    panel.pack::<VECTORS>(weight, shape, first);
    let [_, outputs] = shape;
    let columns = (outputs - first).min(VECTORS * LANES);
    for row in rows.clone().step_by(ROWS) {
        let count = (rows.end - row).min(ROWS);
        // Rows that are not there are the last one again, and not written.
        let starts: [*const u32; ROWS] = std::array::from_fn(|index| {
            left.words[(row + index.min(count - 1)) * left.count..].as_ptr()
        });
        // SAFETY: each of the rows has as many words as the panel.
        let sums = unsafe { tile::<VECTORS>(starts, &panel.words) };
        for (index, sums) in sums.iter().enumerate().take(count) {
            let scale = _mm512_set1_ps(left.scales[row + index]);
            for (vector, sum) in sums.iter().enumerate() {
                let start = vector * LANES;
                let mask = mask((columns - start).min(LANES));
                // SAFETY: the panel has sixteen numbers there; `output` is valid, and the mask leaves out
                // columns that do not exist.
                unsafe {
                    let excess = _mm512_loadu_si512(panel.excess[start..].as_ptr().cast());
                    let sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(*sum, excess));
                    let scales = _mm512_loadu_ps(panel.scales[start..].as_ptr());
                    let out = output.0.add((row + index) * outputs + first + start);
                    let value = _mm512_mul_ps(sum, _mm512_mul_ps(scale, scales));
                    _mm512_mask_storeu_ps(out, mask, value);
                }
            }
        }
    }
}

/// The sums of a tile; `panel` is `[words, VECTORS, LANES]`.
///
/// # Safety
///
/// From each of `rows`, as many words as the panel has must be readable.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile<const VECTORS: usize>(
    rows: [*const u32; ROWS],
    panel: &[u32],
) -> [[__m512i; VECTORS]; ROWS] {
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
    for (word, columns) in panel.chunks_exact(VECTORS * LANES).enumerate() {
        let mut vectors = [_mm512_setzero_si512(); VECTORS];
        for (vector, columns) in vectors.iter_mut().zip(columns.chunks_exact(LANES)) {
            // SAFETY: sixteen words are one vector.
            *vector = unsafe { _mm512_loadu_si512(columns.as_ptr().cast()) };
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            // SAFETY: as for this function.
            let four = unsafe { *row.add(word) };
            let all = _mm512_set1_epi32(four.cast_signed());
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = _mm512_dpbusd_epi32(*sum, all, vector);
            }
        }
    }
    sums
}
