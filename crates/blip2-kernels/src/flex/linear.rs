//! Products with weights in any precision.

use burn::tensor::{DType, bf16, f16};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::matrix::{Matrix, MatrixMut, Threads, product};
use super::vector::task_len;

/// Numbers of a matrix in half precision that are widened at once: 1 MiB in f32, which stays in a
/// core's cache.
const BLOCK: usize = 1 << 18;

/// `x · weight`: rows of `inputs` numbers and `[inputs, outputs]`.
///
/// Of weights in half precision, blocks of rows are widened one after the other and their products
/// added up.
pub fn forward(x: &[f32], weight: &FlexTensor, [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    if let Some(weight) = weight.as_slice::<f32>() {
        let (x, weight) = (Matrix::dense(x, inputs), Matrix::dense(weight, outputs));
        return product(x, weight, Threads::All);
    }
    let rows = x.len() / inputs;
    let mut out = vec![0.0; rows * outputs];
    widened(weight, outputs, |first, block| {
        let columns = block.len() / outputs;
        let x = Matrix::strided(&x[first..], [rows, columns], inputs);
        let block = Matrix::dense(block, outputs);
        MatrixMut::dense(&mut out, outputs).add(1.0, x, block, Threads::All);
    });
    out
}

/// `x · weightᵀ`: rows of `inputs` numbers and `[outputs, inputs]`. With the gradient of the output
/// as `x`, what [`forward`] passes back; with an embedding as `weight`, logits.
pub fn forward_transposed(
    x: &[f32],
    weight: &FlexTensor,
    [outputs, inputs]: [usize; 2],
) -> Vec<f32> {
    if let Some(weight) = weight.as_slice::<f32>() {
        let (x, weight) = (Matrix::dense(x, inputs), Matrix::dense(weight, inputs));
        return product(x, weight.transposed(), Threads::All);
    }
    let rows = x.len() / inputs;
    let mut out = vec![0.0; rows * outputs];
    widened(weight, inputs, |first, block| {
        let columns = block.len() / inputs;
        let x = Matrix::dense(x, inputs);
        let block = Matrix::dense(block, inputs).transposed();
        MatrixMut::strided(&mut out[first..], [rows, columns], outputs).set(
            1.0,
            x,
            block,
            Threads::All,
        );
    });
    out
}

/// The gradient of a weight `[inputs, outputs]`: `xᵀ · grads`.
pub fn weight_grad(x: &[f32], grads: &[f32], [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let x = Matrix::dense(x, inputs).transposed();
    product(x, Matrix::dense(grads, outputs), Threads::All)
}

/// Shows `work` the rows of a dense matrix in half precision, some at a time, in f32: the index of the
/// first, and the rows.
fn widened(weight: &FlexTensor, columns: usize, mut work: impl FnMut(usize, &[f32])) {
    let rows = (BLOCK / columns).max(1);
    let mut block = Vec::new();
    let mut widen = |len: usize, number: &(dyn Fn(usize) -> f32 + Sync)| {
        for start in (0..len).step_by(rows * columns) {
            let end = len.min(start + rows * columns);
            block.resize(end - start, 0.0f32);
            let task = task_len(1);
            block
                .par_chunks_mut(task)
                .enumerate()
                .for_each(|(index, out)| {
                    let start = start + index * task;
                    for (offset, out) in out.iter_mut().enumerate() {
                        *out = number(start + offset);
                    }
                });
            work(start / columns, &block);
        }
    };
    match weight.dtype() {
        DType::BF16 => {
            let numbers = weight.as_slice::<bf16>().unwrap_or_default();
            widen(numbers.len(), &|index| numbers[index].to_f32());
        }
        DType::F16 => {
            let numbers = weight.as_slice::<f16>().unwrap_or_default();
            widen(numbers.len(), &|index| numbers[index].to_f32());
        }
        other => unreachable!("weights in {other:?} take another path"),
    }
}
