//! Layer norm over the last dimension, forward and backward.

use rayon::prelude::*;

use super::vector::{Vectorized, sum, task_len, vectorized};

/// Mean and inverse deviation of a row.
#[inline(always)]
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let width = row.len() as f32;
    let mean = sum(row.len(), |i| row[i]) / width;
    let variance = sum(row.len(), |i| (row[i] - mean) * (row[i] - mean)) / width;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

struct Forward<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    epsilon: f32,
}

impl Vectorized for Forward<'_> {
    #[inline(always)]
    fn run(self) {
        let width = self.gamma.len();
        for (x, out) in self
            .x
            .chunks_exact(width)
            .zip(self.out.chunks_exact_mut(width))
        {
            let (mean, rate) = moments(x, self.epsilon);
            let scales = self.gamma.iter().zip(self.beta);
            for ((out, x), (gamma, beta)) in out.iter_mut().zip(x).zip(scales) {
                *out = (x - mean) * rate * gamma + beta;
            }
        }
    }
}

/// `(x − mean) / deviation · gamma + beta` of every row.
pub fn forward(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let len = task_len(gamma.len());
    out.par_chunks_mut(len)
        .zip(x.par_chunks(len))
        .for_each(|(out, x)| {
            vectorized(Forward {
                x,
                out,
                gamma,
                beta,
                epsilon,
            });
        });
    out
}

struct Backward<'a> {
    x: &'a [f32],
    /// The output's gradient; becomes that of `x`.
    grads: &'a mut [f32],
    gamma: &'a [f32],
    gamma_grad: &'a mut [f32],
    beta_grad: &'a mut [f32],
    epsilon: f32,
}

impl Vectorized for Backward<'_> {
    #[inline(always)]
    fn run(self) {
        let width = self.gamma.len();
        for (x, grads) in self
            .x
            .chunks_exact(width)
            .zip(self.grads.chunks_exact_mut(width))
        {
            let (mean, rate) = moments(x, self.epsilon);
            let normed = |i: usize| (x[i] - mean) * rate;
            for (i, (gamma_grad, beta_grad)) in self
                .gamma_grad
                .iter_mut()
                .zip(self.beta_grad.iter_mut())
                .enumerate()
            {
                *gamma_grad += grads[i] * normed(i);
                *beta_grad += grads[i];
            }
            for (grad, gamma) in grads.iter_mut().zip(self.gamma) {
                *grad *= gamma;
            }
            let mean_grad = sum(width, |i| grads[i]) / width as f32;
            let mean_slope = sum(width, |i| grads[i] * normed(i)) / width as f32;
            for (grad, x) in grads.iter_mut().zip(x) {
                *grad = (*grad - mean_grad - (x - mean) * rate * mean_slope) * rate;
            }
        }
    }
}

/// Turns the output's gradient into that of `x`; returns those of gamma and beta.
pub fn backward(x: &[f32], grads: &mut [f32], gamma: &[f32], epsilon: f32) -> (Vec<f32>, Vec<f32>) {
    let width = gamma.len();
    let len = task_len(width);
    let parts: Vec<(Vec<f32>, Vec<f32>)> = grads
        .par_chunks_mut(len)
        .zip(x.par_chunks(len))
        .map(|(grads, x)| {
            let (mut gamma_grad, mut beta_grad) = (vec![0.0; width], vec![0.0; width]);
            vectorized(Backward {
                x,
                grads,
                gamma,
                gamma_grad: &mut gamma_grad,
                beta_grad: &mut beta_grad,
                epsilon,
            });
            (gamma_grad, beta_grad)
        })
        .collect();
    let mut sums = (vec![0.0; width], vec![0.0; width]);
    let add = |sums: &mut Vec<f32>, part: Vec<f32>| {
        sums.iter_mut()
            .zip(part)
            .for_each(|(sum, part)| *sum += part);
    };
    for (gamma_grad, beta_grad) in parts {
        add(&mut sums.0, gamma_grad);
        add(&mut sums.1, beta_grad);
    }
    sums
}
