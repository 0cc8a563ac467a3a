//! Products of matrices that lie in slices.

#![expect(unsafe_code, reason = "the interface of gemm is pointers")]

use gemm::Parallelism;

#[cfg(target_arch = "x86_64")]
use super::bf16;
use crate::Products;

/// From this many multiplications on, a product is shared out among threads.
const SHARED: usize = 1 << 20;

/// A matrix inside a slice.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` numbers, one after the other.
    pub fn dense(numbers: &'a [f32], columns: usize) -> Self {
        Self::strided(numbers, [numbers.len() / columns.max(1), columns], columns)
    }

    /// Rows that begin `row_stride` numbers apart.
    pub fn strided(numbers: &'a [f32], [rows, columns]: [usize; 2], row_stride: usize) -> Self {
        assert!(span([rows, columns], row_stride) <= numbers.len());
        Self {
            numbers,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Who computes a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread.
    One,
    /// All of the pool, if the product is large enough.
    All,
}

/// How a product is computed.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// By whom.
    pub threads: Threads,
    /// In what precision.
    pub products: Products,
}

/// A matrix to write to.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    numbers: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// Rows of `columns` numbers, one after the other.
    pub fn dense(numbers: &'a mut [f32], columns: usize) -> Self {
        let shape = [numbers.len() / columns.max(1), columns];
        Self::strided(numbers, shape, columns)
    }

    /// Rows that begin `row_stride` numbers apart.
    pub fn strided(numbers: &'a mut [f32], [rows, columns]: [usize; 2], row_stride: usize) -> Self {
        assert!(span([rows, columns], row_stride) <= numbers.len());
        assert!(columns <= row_stride || rows <= 1, "rows overlap");
        Self {
            numbers,
            rows,
            columns,
            row_stride,
        }
    }

    /// Becomes `scale · left · right`.
    pub fn set(self, scale: f32, left: Matrix<'_>, right: Matrix<'_>, how: How) {
        self.product(false, scale, left, right, how);
    }

    /// Adds `scale · left · right`.
    pub fn add(self, scale: f32, left: Matrix<'_>, right: Matrix<'_>, how: How) {
        self.product(true, scale, left, right, how);
    }

    fn product(self, keep: bool, scale: f32, left: Matrix<'_>, right: Matrix<'_>, how: How) {
        assert_eq!([left.rows, right.columns], [self.rows, self.columns]);
        #[cfg(target_arch = "x86_64")]
        if how.products != Products::F32 && bf16::available() {
            let output = bf16::Output {
                numbers: self.numbers.as_mut_ptr(),
                row_stride: self.row_stride,
                keep,
                scale,
            };
            // SAFETY: as below, and the processor can.
            unsafe { bf16::product_to(output, left, bf16::Right::of(right), how.threads) };
            return;
        }
        // SAFETY: `self` borrows its numbers alone, and `strided` has made sure that all of them lie
        // in the slice.
        unsafe {
            gemm_to(
                self.numbers.as_mut_ptr(),
                self.row_stride,
                keep,
                scale,
                left,
                right,
                how.threads,
            );
        }
    }
}

/// `left · right`, dense.
pub fn product(left: Matrix<'_>, right: Matrix<'_>, threads: Threads) -> Vec<f32> {
    let len = left.rows * right.columns;
    if left.columns == 0 {
        return vec![0.0; len];
    }
    let mut out: Vec<f32> = Vec::with_capacity(len);
    // SAFETY: the product writes each of its `len` numbers, and reads none before.
    unsafe {
        gemm_to(
            out.as_mut_ptr(),
            right.columns,
            false,
            1.0,
            left,
            right,
            threads,
        );
        out.set_len(len);
    }
    out
}

/// # Safety
///
/// `out` must be valid for writes of `left.rows` rows of `right.columns` numbers that begin
/// `row_stride` apart, and for reads if they are kept.
unsafe fn gemm_to(
    out: *mut f32,
    row_stride: usize,
    keep: bool,
    scale: f32,
    left: Matrix<'_>,
    right: Matrix<'_>,
    threads: Threads,
) {
    assert_eq!(left.columns, right.rows, "inner dimensions");
    let (m, n, k) = (left.rows, right.columns, left.columns);
    let parallelism = match threads {
        Threads::All if m * n * k >= SHARED => Parallelism::Rayon(0),
        _ => Parallelism::None,
    };
    // SAFETY: the constructors have made sure that every row and column of both sides lies in its
    // slice; a transposition keeps that. For `out`, the caller has.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            row_stride as isize,
            keep,
            left.numbers.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.numbers.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The numbers from the first to the last of a matrix.
fn span([rows, columns]: [usize; 2], row_stride: usize) -> usize {
    match rows {
        0 => 0,
        _ => (rows - 1) * row_stride + columns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_slices_are_multiplied() {
        // [[1, 2], [4, 5]] · [[1, 4], [2, 5]]
        let numbers = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let left = Matrix::strided(&numbers, [2, 2], 3);
        let expected = [5.0, 14.0, 14.0, 41.0];
        assert_eq!(product(left, left.transposed(), Threads::All), expected);
        let mut out = [1.0; 5];
        let how = How {
            threads: Threads::One,
            products: Products::F32,
        };
        MatrixMut::strided(&mut out, [2, 2], 3).add(2.0, left, left.transposed(), how);
        assert_eq!(out, [11.0, 29.0, 1.0, 29.0, 83.0]);
        let nothing = Matrix::strided(&[], [2, 0], 0);
        let zeros = product(nothing, Matrix::strided(&[], [0, 3], 3), Threads::One);
        assert_eq!(zeros, [0.0; 6]);
    }

    #[test]
    #[should_panic(expected = "span")]
    fn a_matrix_beyond_its_slice_is_refused() {
        Matrix::strided(&[0.0; 5], [2, 3], 3);
    }
}
