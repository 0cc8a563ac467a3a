//! A step of AdamW in one pass, and sums of squares.

use rayon::prelude::*;

use super::vector::{Vectorized, sum, task_len, vectorized};
use crate::AdamWStep;

struct Step<'a> {
    weights: &'a mut [f32],
    grads: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    step: AdamWStep,
}

impl Vectorized for Step<'_> {
    #[inline(always)]
    fn run(self) {
        let [beta_1, beta_2] = self.step.betas.map(|beta| beta as f32);
        let [new_1, new_2] = self.step.betas.map(|beta| (1.0 - beta) as f32);
        let (kept, rate) = (self.step.kept() as f32, self.step.rate() as f32);
        let (correction, eps) = (self.step.correction() as f32, self.step.eps as f32);
        let moments = self.first.iter_mut().zip(self.second);
        for ((weight, grad), (first, second)) in
            self.weights.iter_mut().zip(self.grads).zip(moments)
        {
            *first = *first * beta_1 + grad * new_1;
            *second = *second * beta_2 + grad * grad * new_2;
            *weight = *weight * kept - *first * rate / ((*second * correction).sqrt() + eps);
        }
    }
}

/// Does the step in place.
pub fn step(
    weights: &mut [f32],
    grads: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    step: AdamWStep,
) {
    let len = task_len(1);
    weights
        .par_chunks_mut(len)
        .zip(grads.par_chunks(len))
        .zip(first.par_chunks_mut(len).zip(second.par_chunks_mut(len)))
        .for_each(|((weights, grads), (first, second))| {
            vectorized(Step {
                weights,
                grads,
                first,
                second,
                step,
            });
        });
}

struct Squares<'a> {
    numbers: &'a [f32],
    sum: &'a mut f32,
}

impl Vectorized for Squares<'_> {
    #[inline(always)]
    fn run(self) {
        *self.sum = sum(self.numbers.len(), |i| self.numbers[i] * self.numbers[i]);
    }
}

/// The sum of the squares of `numbers`.
pub fn squared_sum(numbers: &[f32]) -> f32 {
    let parts: Vec<f32> = numbers
        .par_chunks(task_len(1))
        .map(|numbers| {
            let mut sum = 0.0;
            vectorized(Squares {
                numbers,
                sum: &mut sum,
            });
            sum
        })
        .collect();
    parts.into_iter().map(f64::from).sum::<f64>() as f32
}
