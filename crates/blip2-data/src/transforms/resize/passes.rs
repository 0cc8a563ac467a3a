//! The two passes of a resize, in loops that the compiler turns into vector instructions.
//!
//! One loop does both: a block of samples, each under the other in memory, is weighed at once. Rows
//! of an image lie that way already; columns are first brought there, a few rows at a time. It is
//! integer arithmetic, so that every processor has the same result.

use pulp::{Arch, Simd, WithSimd};

use super::{PRECISION, Window};

/// Samples that are weighed side by side: their sums fit into the registers of every processor.
const BLOCK: usize = 32;

/// Rows whose pixels lie side by side in a block, each filled up to four bytes: a row's neighbours
/// then are whole words.
const ROWS: usize = BLOCK / 4;

/// Added before the shift, so that it rounds.
const HALF: i32 = 1 << (PRECISION - 1);

/// Resizes each row of `width` pixels.
pub(super) fn resize_rows(pixels: &[u8], width: usize, windows: &[Window]) -> Vec<u8> {
    Arch::new().dispatch(ResizeRows {
        pixels,
        width,
        windows,
    })
}

/// Mixes rows of `stride` bytes into one row a window.
pub(super) fn mix_rows(pixels: &[u8], stride: usize, windows: &[Window]) -> Vec<u8> {
    Arch::new().dispatch(MixRows {
        pixels,
        stride,
        windows,
    })
}

struct ResizeRows<'a> {
    pixels: &'a [u8],
    width: usize,
    windows: &'a [Window],
}

impl WithSimd for ResizeRows<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> Vec<u8> {
        let (from, to) = (3 * self.width, 3 * self.windows.len());
        let mut result = vec![0; self.pixels.len() / from * to];
        let mut columns = vec![[0; BLOCK]; self.width];
        // The sums go through memory: where three bytes of four are taken from them at once, compilers
        // leave out the fourth, and the vectors with it.
        let mut resized = vec![[0; BLOCK]; self.windows.len()];
        let groups = self.pixels.chunks(ROWS * from);
        for (rows, results) in groups.zip(result.chunks_mut(ROWS * to)) {
            for (place, row) in rows.chunks_exact(from).enumerate() {
                for (column, pixel) in columns.iter_mut().zip(row.chunks_exact(3)) {
                    column[4 * place..4 * place + 3].copy_from_slice(pixel);
                }
            }
            for (column, window) in resized.iter_mut().zip(self.windows) {
                let start = window.start * BLOCK;
                *column = weigh(columns.as_flattened(), start, BLOCK, window);
            }
            for (place, row) in results.chunks_exact_mut(to).enumerate() {
                for (column, pixel) in resized.iter().zip(row.chunks_exact_mut(3)) {
                    pixel.copy_from_slice(&column[4 * place..4 * place + 3]);
                }
            }
        }
        result
    }
}

struct MixRows<'a> {
    pixels: &'a [u8],
    stride: usize,
    windows: &'a [Window],
}

impl WithSimd for MixRows<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> Vec<u8> {
        let mut result = vec![0; self.windows.len() * self.stride];
        for (window, row) in self
            .windows
            .iter()
            .zip(result.chunks_exact_mut(self.stride))
        {
            let mut at = window.start * self.stride;
            let (blocks, rest) = row.as_chunks_mut::<BLOCK>();
            for block in blocks {
                *block = weigh(self.pixels, at, self.stride, window);
                at += BLOCK;
            }
            for sample in rest {
                [*sample] = weigh(self.pixels, at, self.stride, window);
                at += 1;
            }
        }
        result
    }
}

/// `N` weighted sums at once: of the `N` samples at `at` and those that follow them by `stride`, one
/// block a weight.
#[inline(always)]
fn weigh<const N: usize>(samples: &[u8], mut at: usize, stride: usize, window: &Window) -> [u8; N] {
    let mut sums = [HALF; N];
    for &weight in &window.weights {
        for (sum, sample) in sums.iter_mut().zip(&samples[at..at + N]) {
            *sum += i32::from(*sample) * weight;
        }
        at += stride;
    }
    let mut result = [0; N];
    for (sample, sum) in result.iter_mut().zip(sums) {
        *sample = (sum >> PRECISION).clamp(0, 255) as u8;
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transforms::Resample;

    /// The definition of a pass, one sample after the other.
    fn one_by_one(
        windows: &[Window],
        count: usize,
        sample: impl Fn(usize, usize) -> u8,
    ) -> Vec<u8> {
        let mut result = Vec::new();
        for index in 0..count {
            for window in windows {
                let weights = window.weights.iter().enumerate();
                let sum: i64 = weights
                    .map(|(tap, weight)| {
                        i64::from(*weight) * i64::from(sample(index, window.start + tap))
                    })
                    .sum();
                result.push(((sum + i64::from(HALF)) >> PRECISION).clamp(0, 255) as u8);
            }
        }
        result
    }

    proptest! {
        /// Widths and heights around the block's, and samples at both ends, where sums leave 8 bits.
        #[test]
        fn passes_equal_their_definition(
            width in 1usize..70, height in 1usize..40, to in 1usize..50, bicubic: bool,
            seed in any::<u64>(), hard: bool,
        ) {
            let filter = if bicubic { Resample::Bicubic } else { Resample::Bilinear };
            let noise = |index: usize| {
                let mixed = (index as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                if hard { (mixed as u8 & 1) * 255 } else { mixed as u8 }
            };
            let pixels: Vec<u8> = (0..3 * width * height).map(noise).collect();

            let windows = filter.windows(width, to);
            let found = resize_rows(&pixels, width, &windows);
            for channel in 0..3 {
                let expected = one_by_one(&windows, height, |row, column| {
                    pixels[3 * (row * width + column) + channel]
                });
                let found: Vec<u8> = found.iter().skip(channel).step_by(3).copied().collect();
                prop_assert_eq!(found, expected);
            }

            let (windows, stride) = (filter.windows(height, to), 3 * width);
            let found = mix_rows(&pixels, stride, &windows);
            let expected = one_by_one(&windows, stride, |column, row| pixels[row * stride + column]);
            for (index, sample) in found.iter().enumerate() {
                prop_assert_eq!(*sample, expected[index % stride * to + index / stride]);
            }
        }
    }
}
