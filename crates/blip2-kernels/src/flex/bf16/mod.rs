//! Products in bfloat16 with sums in f32, for processors with AVX-512 BF16.
//!
//! Both sides are rounded to bfloat16, and two numbers that follow each other along the inner dimension
//! share a word: one instruction multiplies a word of a row with those of sixteen columns. The left side
//! is rounded once; of the right side, a panel of columns at a time is packed beside the core that
//! multiplies it, so that nothing as large as a weight is written.

#![expect(
    unsafe_code,
    reason = "calls that need the processor's feature, and writing to columns of one matrix from several threads"
)]

pub mod few_rows;
mod pack;
mod tile;

use std::cell::RefCell;

pub use self::pack::Right;
use self::pack::{Left, Numbers};
pub use self::tile::Output;
use super::matrix::{Matrix, Threads};
use super::tiles::{self, VECTORS, share, vectors};
use super::weights::Weights;

/// Whether this processor multiplies bfloat16.
pub fn available() -> bool {
    tiles::available() && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// `x · weight`: rows of `inputs` numbers and `[inputs, outputs]`. Only where [`available`].
pub fn forward(x: &[f32], weight: Weights<'_>, [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let mut room = Vec::new();
    let numbers = numbers(&weight, &mut room);
    let right = Right::rows(numbers, [inputs, outputs], outputs);
    product(Matrix::dense(x, inputs), right)
}

/// `x · weightᵀ`: rows of `inputs` numbers and `[outputs, inputs]`. Only where [`available`].
pub fn forward_transposed(
    x: &[f32],
    weight: Weights<'_>,
    [outputs, inputs]: [usize; 2],
) -> Vec<f32> {
    let mut room = Vec::new();
    let numbers = numbers(&weight, &mut room);
    let right = Right::columns(numbers, [inputs, outputs], inputs);
    product(Matrix::dense(x, inputs), right)
}

/// `xᵀ · grads`: `[inputs, outputs]`. Only where [`available`].
pub fn weight_grad(x: &[f32], grads: &[f32], [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let x = Matrix::dense(x, inputs);
    let right = Right::of(Matrix::dense(grads, outputs));
    product(x.transposed(), right)
}

/// Those that the packing reads as they are; others are widened into `room` first.
fn numbers<'a>(weight: &'a Weights<'_>, room: &'a mut Vec<f32>) -> Numbers<'a> {
    match weight {
        Weights::F32(numbers) => Numbers::F32(numbers),
        Weights::BF16(numbers) => Numbers::BF16(numbers),
        narrow => Numbers::F32(narrow.widened(0..narrow.len(), room)),
    }
}

fn product(left: Matrix<'_>, right: Right<'_>) -> Vec<f32> {
    let (rows, columns) = (left.rows, right.columns);
    let mut out: Vec<f32> = Vec::with_capacity(rows * columns);
    let output = Output {
        numbers: out.as_mut_ptr(),
        row_stride: columns,
        keep: false,
        scale: 1.0,
    };
    // SAFETY: there is room for all rows of all columns, each of which is written, and none read; and
    // whoever calls this module has asked `available`.
    unsafe {
        product_to(output, left, right, Threads::All);
        out.set_len(rows * columns);
    }
    out
}

/// Writes `left · right` to `output`, or adds it. Only where [`available`].
///
/// # Safety
///
/// `output` must be valid for writes of all rows and columns of the product, and for reads if they are
/// kept; nobody else may use it meanwhile. The processor must be [`available`].
pub unsafe fn product_to(output: Output, left: Matrix<'_>, right: Right<'_>, threads: Threads) {
    /// The panel that a thread is at.
    fn with_panel(work: impl FnOnce(&mut Vec<u32>)) {
        thread_local! {
            static PANEL: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
        }
        PANEL.with_borrow_mut(work);
    }
    assert_eq!(left.columns, right.inner, "inner dimensions");
    let (rows, columns) = (left.rows, right.columns);
    let left = Left::new(left, threads);
    share([rows, columns], threads, |rows, first| {
        // SAFETY: as for this function; each task writes to rows and columns of its own.
        with_panel(|panel| unsafe {
            match vectors(columns, first) {
                1 => tile::rows::<1>(output, &left, rows, &right, first, panel),
                2 => tile::rows::<2>(output, &left, rows, &right, first, panel),
                _ => tile::rows::<VECTORS>(output, &left, rows, &right, first, panel),
            }
        });
    });
}
