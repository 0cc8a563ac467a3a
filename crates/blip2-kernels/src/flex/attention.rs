//! Attention without whole score matrices: a few queries at a time, and again for the gradient.
//!
//! Forward keeps the output and the logarithm of each query's sum of exponentials; the weights are made
//! again from them for the gradient (Dao et al., FlashAttention, arXiv 2205.14135, appendix B).

use rayon::prelude::*;

use super::matrix::{How, Matrix, MatrixMut, Threads};
use super::vector::{Vectorized, exp, max, sum, vectorized};
use crate::{DropoutSeed, Products};

/// Queries whose scores are in the cache at once.
const TILE: usize = 64;

/// `[batch, tokens, width]` in a slice: where rows begin, and how far apart batches and rows are.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// From the first number on.
    pub numbers: &'a [f32],
    /// Between batches.
    pub batch_stride: usize,
    /// Between tokens.
    pub row_stride: usize,
}

impl<'a> Rows<'a> {
    /// One head of some tokens.
    fn head(&self, batch: usize, row: usize, column: usize, shape: [usize; 2]) -> Matrix<'a> {
        let start = batch * self.batch_stride + row * self.row_stride + column;
        Matrix::strided(&self.numbers[start..], shape, self.row_stride)
    }
}

/// What is added to scores: `[batch, heads, queries, keys]`, with a stride of 0 where it is the same for
/// all. Empty adds nothing.
#[derive(Debug, Clone, Copy)]
pub struct Bias<'a> {
    /// From the first number on; rows of keys are dense.
    pub numbers: &'a [f32],
    /// Of batch, head, query.
    pub strides: [usize; 3],
}

/// The dimensions of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows of the batch.
    pub batch: usize,
    /// Tokens that look.
    pub queries: usize,
    /// Tokens that are looked at.
    pub keys: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

impl Shape {
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// An attention's inputs.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// The dimensions.
    pub shape: Shape,
    /// `[batch, queries, width]`
    pub query: Rows<'a>,
    /// `[batch, keys, width]`
    pub key: Rows<'a>,
    /// `[batch, keys, width]`
    pub value: Rows<'a>,
    /// Added to the scores.
    pub bias: Bias<'a>,
    /// Of attention weights.
    pub dropout: Option<DropoutSeed>,
    /// In what precision scores and outputs are multiplied; exponentials and sums are f32.
    pub products: Products,
}

/// Some queries of one head.
#[derive(Debug, Clone, Copy)]
struct Tile {
    batch: usize,
    head: usize,
    first: usize,
    rows: usize,
}

impl Attention<'_> {
    /// Threads share out tiles, so each product has one.
    fn how(&self) -> How {
        How {
            threads: Threads::One,
            products: self.products,
        }
    }

    /// The output `[batch, queries, width]`, and the logarithms of the sums, `[batch, queries, heads]`.
    pub fn forward(&self) -> (Vec<f32>, Vec<f32>) {
        let Shape {
            batch,
            queries,
            keys,
            heads,
            ..
        } = self.shape;
        let width = self.shape.width();
        let mut out = vec![0.0; batch * queries * width];
        let mut logs = vec![0.0; batch * queries * heads];
        let tiles = |out: &mut [f32], logs: &mut [f32], batch: usize| {
            let parts = out.par_chunks_mut(TILE * width);
            let parts = parts.zip(logs.par_chunks_mut(TILE * heads)).enumerate();
            parts.for_each_init(
                || vec![0.0; TILE.min(queries) * keys],
                |scores, (index, (out, logs))| {
                    for head in 0..heads {
                        let tile = Tile {
                            batch,
                            head,
                            first: index * TILE,
                            rows: out.len() / width,
                        };
                        self.forward_tile(tile, &mut scores[..tile.rows * keys], out, logs);
                    }
                },
            );
        };
        out.par_chunks_mut(queries * width)
            .zip(logs.par_chunks_mut(queries * heads))
            .enumerate()
            .for_each(|(batch, (out, logs))| tiles(out, logs, batch));
        (out, logs)
    }

    fn forward_tile(&self, tile: Tile, scores: &mut [f32], out: &mut [f32], logs: &mut [f32]) {
        let Shape {
            keys,
            heads,
            head_dim,
            ..
        } = self.shape;
        self.scores(tile, scores);
        // The part of the logarithms that is this head's begins at it.
        let mut rates = [0.0; TILE];
        vectorized(Softmax {
            scores,
            keys,
            rates: &mut rates[..tile.rows],
            logs: &mut logs[tile.head..],
            heads,
        });
        if let Some(dropout) = self.dropout {
            vectorized(Drop {
                weights: scores,
                first: self.first_weight(tile),
                dropout,
            });
        }
        let (column, width) = (tile.head * head_dim, self.shape.width());
        let value = self.value.head(tile.batch, 0, column, [keys, head_dim]);
        let shape = [tile.rows, head_dim];
        MatrixMut::strided(&mut out[column..], shape, width).set(
            1.0,
            Matrix::dense(scores, keys),
            value,
            self.how(),
        );
        for (row, rate) in rates[..tile.rows].iter().enumerate() {
            let start = row * width + column;
            for number in &mut out[start..start + head_dim] {
                *number *= rate;
            }
        }
    }

    /// The scores of a tile, with the bias.
    fn scores(&self, tile: Tile, scores: &mut [f32]) {
        let Shape { keys, head_dim, .. } = self.shape;
        let column = tile.head * head_dim;
        let rows = [tile.rows, head_dim];
        let query = self.query.head(tile.batch, tile.first, column, rows);
        let key = self.key.head(tile.batch, 0, column, [keys, head_dim]);
        MatrixMut::dense(scores, keys).set(self.shape.scale(), query, key.transposed(), self.how());
        if self.bias.numbers.is_empty() {
            return;
        }
        let [batch, head, query] = self.bias.strides;
        for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
            let start = tile.batch * batch + tile.head * head + (tile.first + row) * query;
            let bias = &self.bias.numbers[start..start + keys];
            for (score, bias) in scores.iter_mut().zip(bias) {
                *score += bias;
            }
        }
    }

    /// The number of a tile's first attention weight among all of the attention's.
    fn first_weight(&self, tile: Tile) -> u32 {
        let rows = (tile.batch * self.shape.heads + tile.head) * self.shape.queries + tile.first;
        (rows as u32).wrapping_mul(self.shape.keys as u32)
    }

    /// The gradients of query, key and value, dense, from that of the output, for which `out` and
    /// `logs` are what [`forward`](Self::forward) gave.
    pub fn backward(&self, out: &[f32], logs: &[f32], grads: &[f32]) -> [Vec<f32>; 3] {
        let Shape {
            batch,
            queries,
            keys,
            ..
        } = self.shape;
        let width = self.shape.width();
        let mut query_grad = vec![0.0; batch * queries * width];
        let mut key_grad = vec![0.0; batch * keys * width];
        let mut value_grad = vec![0.0; batch * keys * width];
        query_grad
            .par_chunks_mut(queries * width)
            .zip(key_grad.par_chunks_mut(keys * width))
            .zip(value_grad.par_chunks_mut(keys * width))
            .enumerate()
            .for_each(|(batch, ((query, key), value))| {
                self.backward_row(batch, [out, logs, grads], [query, key, value]);
            });
        [query_grad, key_grad, value_grad]
    }

    fn backward_row(&self, batch: usize, known: [&[f32]; 3], grads: [&mut [f32]; 3]) {
        let Shape {
            queries,
            keys,
            heads,
            head_dim,
            ..
        } = self.shape;
        let width = self.shape.width();
        let [out, logs, out_grads] = known;
        let [query_grad, key_grad, value_grad] = grads;
        let rows = TILE.min(queries);
        let mut weights = vec![0.0; rows * keys];
        let mut slopes = vec![0.0; rows * keys];
        for head in 0..heads {
            let column = head * head_dim;
            for first in (0..queries).step_by(TILE) {
                let tile = Tile {
                    batch,
                    head,
                    first,
                    rows: TILE.min(queries - first),
                };
                let weights = &mut weights[..tile.rows * keys];
                let slopes = &mut slopes[..tile.rows * keys];
                self.scores(tile, weights);
                let start = (batch * queries + first) * width + column;
                let tile_grads = Matrix::strided(&out_grads[start..], [tile.rows, head_dim], width);
                let value = self.value.head(batch, 0, column, [keys, head_dim]);
                MatrixMut::dense(slopes, keys).set(1.0, tile_grads, value.transposed(), self.how());
                vectorized(Backward {
                    weights,
                    slopes,
                    keys,
                    logs: &logs[(batch * queries + first) * heads + head..],
                    heads,
                    out: &out[start..],
                    grads: &out_grads[start..],
                    head_dim,
                    width,
                    first: self.first_weight(tile),
                    dropout: self.dropout,
                });
                let (weights, slopes) = (Matrix::dense(weights, keys), Matrix::dense(slopes, keys));
                let shape = [keys, head_dim];
                MatrixMut::strided(&mut value_grad[column..], shape, width).add(
                    1.0,
                    weights.transposed(),
                    tile_grads,
                    self.how(),
                );
                let query = self.query.head(batch, first, column, [tile.rows, head_dim]);
                let scale = self.shape.scale();
                MatrixMut::strided(&mut key_grad[column..], shape, width).add(
                    scale,
                    slopes.transposed(),
                    query,
                    self.how(),
                );
                let start = first * width + column;
                let shape = [tile.rows, head_dim];
                let key = self.key.head(batch, 0, column, [keys, head_dim]);
                MatrixMut::strided(&mut query_grad[start..], shape, width).set(
                    scale,
                    slopes,
                    key,
                    self.how(),
                );
            }
        }
    }
}

/// Exponentials of scores in place, the inverse of their sums, and the logarithms of the sums.
struct Softmax<'a> {
    scores: &'a mut [f32],
    keys: usize,
    rates: &'a mut [f32],
    /// Every `heads`th is ours.
    logs: &'a mut [f32],
    heads: usize,
}

impl Vectorized for Softmax<'_> {
    #[inline(always)]
    fn run(self) {
        let logs = self.logs.iter_mut().step_by(self.heads);
        let rows = self.scores.chunks_exact_mut(self.keys);
        for ((row, rate), log) in rows.zip(self.rates).zip(logs) {
            let max = max(row);
            for score in row.iter_mut() {
                *score = exp(*score - max);
            }
            let total = sum(row.len(), |i| row[i]);
            *rate = 1.0 / total;
            *log = max + total.ln();
        }
    }
}

/// Drops attention weights.
struct Drop<'a> {
    weights: &'a mut [f32],
    first: u32,
    dropout: DropoutSeed,
}

impl Vectorized for Drop<'_> {
    #[inline(always)]
    fn run(self) {
        for (index, weight) in self.weights.iter_mut().enumerate() {
            *weight *= self.dropout.factor(self.first.wrapping_add(index as u32));
        }
    }
}

/// From scores and the gradients of weights to the weights that were used and the gradients of scores.
struct Backward<'a> {
    /// Scores; becomes the weights after dropout.
    weights: &'a mut [f32],
    /// Gradients of the weights after dropout; becomes those of the scores.
    slopes: &'a mut [f32],
    keys: usize,
    logs: &'a [f32],
    heads: usize,
    out: &'a [f32],
    grads: &'a [f32],
    head_dim: usize,
    width: usize,
    first: u32,
    dropout: Option<DropoutSeed>,
}

impl Vectorized for Backward<'_> {
    #[inline(always)]
    fn run(self) {
        let keys = self.keys;
        let rows = self
            .weights
            .chunks_exact_mut(keys)
            .zip(self.slopes.chunks_exact_mut(keys));
        for (row, (weights, slopes)) in rows.enumerate() {
            let log = self.logs[row * self.heads];
            let start = row * self.width;
            let out = &self.out[start..start + self.head_dim];
            let grads = &self.grads[start..start + self.head_dim];
            // The mean slope under the weights; dropout does not change it.
            let mean = sum(self.head_dim, |i| out[i] * grads[i]);
            match self.dropout {
                None => {
                    for (weight, slope) in weights.iter_mut().zip(slopes) {
                        *weight = exp(*weight - log);
                        *slope = *weight * (*slope - mean);
                    }
                }
                Some(dropout) => {
                    let first = self.first.wrapping_add((row * keys) as u32);
                    for (index, (weight, slope)) in weights.iter_mut().zip(slopes).enumerate() {
                        let kept = dropout.factor(first.wrapping_add(index as u32));
                        let whole = exp(*weight - log);
                        *weight = whole * kept;
                        *slope = whole * (*slope * kept - mean);
                    }
                }
            }
        }
    }
}
