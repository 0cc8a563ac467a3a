//! Products of numbers rounded to eight bits with sums in 32, for processors with AVX-512 VNNI.
//!
//! Each row of the left side and each column of the right one is a multiple of its own largest number over
//! 127, found anew for every product ("dynamic" quantization). Four numbers that follow each other along the
//! inner dimension share a word: one instruction multiplies a word of a row with those of sixteen columns,
//! twice as many numbers as in bfloat16.

#![expect(
    unsafe_code,
    reason = "calls that need the processor's feature, and writing to columns of one matrix from several threads"
)]

mod pack;
mod tile;

use std::cell::RefCell;

use self::pack::{Left, Panel};
use super::matrix::Threads;
use super::tiles::{self, VECTORS, share, vectors};
use super::weights::Weights;

/// Whether this processor multiplies numbers of eight bits.
pub fn available() -> bool {
    tiles::available() && std::arch::is_x86_feature_detected!("avx512vnni")
}

/// `x · weight`: rows of `inputs` numbers and `[inputs, outputs]`. A row or column with a number that is not
/// finite gives none that is. Only where [`available`].
pub fn forward(x: &[f32], weight: Weights<'_>, [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    /// The panel that a thread is at.
    fn with_panel(work: impl FnOnce(&mut Panel)) {
        thread_local! {
            static PANEL: RefCell<Panel> = RefCell::default();
        }
        PANEL.with_borrow_mut(work);
    }
    let rows = x.len() / inputs;
    let left = Left::new(x, inputs);
    let mut out: Vec<f32> = Vec::with_capacity(rows * outputs);
    let output = Output(out.as_mut_ptr());
    share([rows, outputs], Threads::All, |rows, first| {
        // SAFETY: whoever calls this has asked whether the processor can; there is room for all rows of
        // all columns, and each task writes to those of its own.
        with_panel(|panel| unsafe {
            let shape = [inputs, outputs];
            match vectors(outputs, first) {
                1 => tile::rows::<1>(output, &left, rows, &weight, shape, first, panel),
                2 => tile::rows::<2>(output, &left, rows, &weight, shape, first, panel),
                _ => tile::rows::<VECTORS>(output, &left, rows, &weight, shape, first, panel),
            }
        });
    });
    // SAFETY: each of the numbers has been written.
    unsafe { out.set_len(rows * outputs) };
    out
}

/// Where a product goes: its rows, one after the other.
#[derive(Debug, Clone, Copy)]
struct Output(*mut f32);

// SAFETY: only `tile::rows` writes through it, and each task calls that for rows and columns of its own.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}
