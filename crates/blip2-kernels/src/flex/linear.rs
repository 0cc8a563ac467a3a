//! Products with weights in any precision.

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::bf16;
use super::few_rows;
#[cfg(target_arch = "x86_64")]
use super::int8;
use super::matrix::{How, Matrix, MatrixMut, Threads, product};
use super::vector::task_len;
use super::weights::Weights;
use crate::Products;

/// Numbers of a matrix in half precision that are widened at once: 1 MiB in f32, which stays in a
/// core's cache.
const BLOCK: usize = 1 << 18;

/// How a block is multiplied.
const SHARED: How = How {
    threads: Threads::All,
    products: Products::F32,
};

/// `x · weight`: rows of `inputs` numbers and `[inputs, outputs]`.
///
/// Of weights in half precision, blocks of rows are widened one after the other and their products
/// added up.
pub fn forward(
    x: &[f32],
    weight: Weights<'_>,
    [inputs, outputs]: [usize; 2],
    products: Products,
) -> Vec<f32> {
    let rows = x.len() / inputs;
    let few = rows <= few_rows::MOST;
    #[cfg(target_arch = "x86_64")]
    if products == Products::INT8 && int8::available() && !few {
        return int8::forward(x, weight, [inputs, outputs]);
    }
    #[cfg(target_arch = "x86_64")]
    if products != Products::F32 && bf16::available() {
        match (few, weight) {
            (true, Weights::BF16(weight)) => {
                return bf16::few_rows::forward(x, weight, [inputs, outputs]);
            }
            (true, _) => {}
            (false, _) => return bf16::forward(x, weight, [inputs, outputs]),
        }
    }
    if few {
        return few_rows::forward(x, weight, [inputs, outputs]);
    }
    if let Weights::F32(weight) = weight {
        let (x, weight) = (Matrix::dense(x, inputs), Matrix::dense(weight, outputs));
        return product(x, weight, Threads::All);
    }
    let mut out = vec![0.0; rows * outputs];
    blocks(weight, outputs, |first, block| {
        let columns = block.len() / outputs;
        let x = Matrix::strided(&x[first..], [rows, columns], inputs);
        let block = Matrix::dense(block, outputs);
        MatrixMut::dense(&mut out, outputs).add(1.0, x, block, SHARED);
    });
    out
}

/// `x · weightᵀ`: rows of `inputs` numbers and `[outputs, inputs]`. With the gradient of the output
/// as `x`, what [`forward`] passes back; with an embedding as `weight`, logits.
pub fn forward_transposed(
    x: &[f32],
    weight: Weights<'_>,
    [outputs, inputs]: [usize; 2],
    products: Products,
) -> Vec<f32> {
    let rows = x.len() / inputs;
    let few = rows <= few_rows::MOST;
    #[cfg(target_arch = "x86_64")]
    if products != Products::F32 && bf16::available() {
        match (few, weight) {
            (true, Weights::BF16(weight)) => {
                return bf16::few_rows::forward_transposed(x, weight, [outputs, inputs]);
            }
            (true, _) => {}
            (false, _) => return bf16::forward_transposed(x, weight, [outputs, inputs]),
        }
    }
    if few {
        return few_rows::forward_transposed(x, weight, [outputs, inputs]);
    }
    if let Weights::F32(weight) = weight {
        let (x, weight) = (Matrix::dense(x, inputs), Matrix::dense(weight, inputs));
        return product(x, weight.transposed(), Threads::All);
    }
    let mut out = vec![0.0; rows * outputs];
    blocks(weight, inputs, |first, block| {
        let columns = block.len() / inputs;
        let x = Matrix::dense(x, inputs);
        let block = Matrix::dense(block, inputs).transposed();
        MatrixMut::strided(&mut out[first..], [rows, columns], outputs).set(1.0, x, block, SHARED);
    });
    out
}

/// The gradient of a weight `[inputs, outputs]`: `xᵀ · grads`.
pub fn weight_grad(
    x: &[f32],
    grads: &[f32],
    [inputs, outputs]: [usize; 2],
    products: Products,
) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if products != Products::F32 && bf16::available() {
        return bf16::weight_grad(x, grads, [inputs, outputs]);
    }
    let x = Matrix::dense(x, inputs).transposed();
    product(x, Matrix::dense(grads, outputs), Threads::All)
}

/// Shows `work` the rows of a weight, some at a time, in f32: the index of the first, and the rows.
fn blocks(weight: Weights<'_>, columns: usize, mut work: impl FnMut(usize, &[f32])) {
    let len = (BLOCK / columns).max(1) * columns;
    let task = task_len(1);
    let mut block = Vec::new();
    for start in (0..weight.len()).step_by(len) {
        block.resize(len.min(weight.len() - start), 0.0);
        block
            .par_chunks_mut(task)
            .enumerate()
            .for_each_init(Vec::new, |room, (index, out)| {
                let start = start + index * task;
                out.copy_from_slice(weight.widened(start..start + out.len(), room));
            });
        work(start / columns, &block);
    }
}
