//! Products of a few rows, as when captions grow token by token: each weight is read from memory once and
//! used for all rows. A general product would first copy the weights into an order of its own.

use rayon::prelude::*;

use super::vector::{LANES, Vectorized, vectorized};
use super::weights::Weights;

/// The most rows that are better off here.
pub const MOST: usize = 24;

/// Rows that share one look at a weight.
const GROUP: usize = 8;
/// Rows of weights that are added at once.
const INPUTS: usize = 4;
/// Weights that one task reads, and that it looks at together.
const TASK: usize = 1 << 15;
const PIECE: usize = 1 << 12;

/// `x · weight`: rows of `inputs` numbers and `[inputs, outputs]`.
pub fn forward(x: &[f32], weight: Weights<'_>, [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let rows = x.len() / inputs;
    // Columns of a task; sums do not depend on them.
    let tasks = 2 * rayon::current_num_threads();
    let columns = outputs.div_ceil(tasks).next_multiple_of(LANES).min(512);
    let parts: Vec<Vec<f32>> = (0..outputs.div_ceil(columns))
        .into_par_iter()
        .map_init(
            || [const { Vec::new() }; INPUTS],
            |rooms, part| {
                let first = part * columns;
                let columns = columns.min(outputs - first);
                let mut sums = vec![0.0; rows * columns];
                for input in (0..inputs).step_by(INPUTS) {
                    // Beyond the last input the last one is taken again, times nothing.
                    let mut index = input;
                    let weights = rooms.each_mut().map(|room| {
                        let start = index.min(inputs - 1) * outputs + first;
                        index += 1;
                        weight.widened(start..start + columns, room)
                    });
                    vectorized(AddScaled {
                        sums: &mut sums,
                        weights,
                        x: &x[input..],
                        inputs,
                        count: INPUTS.min(inputs - input),
                    });
                }
                sums
            },
        )
        .collect();
    let mut out = vec![0.0; rows * outputs];
    for (part, sums) in parts.iter().enumerate() {
        let first = part * columns;
        let columns = sums.len() / rows.max(1);
        for (row, sums) in sums.chunks_exact(columns.max(1)).enumerate() {
            out[row * outputs + first..][..columns].copy_from_slice(sums);
        }
    }
    out
}

/// Adds some rows of weights to the sums of each row, times its numbers.
struct AddScaled<'a> {
    /// As many for each row as there are weights in a row.
    sums: &'a mut [f32],
    weights: [&'a [f32]; INPUTS],
    /// The first row's numbers; those of other rows are `inputs` apart.
    x: &'a [f32],
    inputs: usize,
    /// How many of the weights count.
    count: usize,
}

impl Vectorized for AddScaled<'_> {
    #[inline(always)]
    fn run(self) {
        let [a, b, c, d] = self.weights;
        let columns = a.len();
        let (b, c, d) = (&b[..columns], &c[..columns], &d[..columns]);
        let rows = self.sums.chunks_exact_mut(columns);
        for (sums, x) in rows.zip(self.x.chunks(self.inputs)) {
            let mut factors = [0.0; INPUTS];
            factors[..self.count].copy_from_slice(&x[..self.count]);
            for (column, sum) in sums.iter_mut().enumerate() {
                *sum += factors[0] * a[column];
                *sum += factors[1] * b[column];
                *sum += factors[2] * c[column];
                *sum += factors[3] * d[column];
            }
        }
    }
}

/// `x · weightᵀ`: rows of `inputs` numbers and `[outputs, inputs]`.
pub fn forward_transposed(
    x: &[f32],
    weight: Weights<'_>,
    [outputs, inputs]: [usize; 2],
) -> Vec<f32> {
    let rows = x.len() / inputs;
    let task = (TASK / inputs).max(1);
    // `[outputs, rows]`, so that each task has a part of its own.
    let mut dots = vec![0.0; outputs * rows];
    dots.par_chunks_mut(task * rows)
        .enumerate()
        .for_each_init(Vec::new, |room, (index, dots)| {
            // In pieces that fit a core's first cache, should they be widened.
            let piece = (PIECE / inputs).max(1);
            for (part, dots) in dots.chunks_mut(piece * rows).enumerate() {
                let start = (index * task + part * piece) * inputs;
                let len = dots.len() / rows * inputs;
                vectorized(Dots {
                    x,
                    weights: weight.widened(start..start + len, room),
                    dots,
                    inputs,
                });
            }
        });
    let mut out = vec![0.0; rows * outputs];
    out.par_chunks_exact_mut(outputs)
        .enumerate()
        .for_each(|(row, out)| {
            for (out, dots) in out.iter_mut().zip(dots.chunks_exact(rows)) {
                *out = dots[row];
            }
        });
    out
}

/// The products of every row of `x` with every row of weights.
struct Dots<'a> {
    x: &'a [f32],
    weights: &'a [f32],
    /// `[weights, rows]`
    dots: &'a mut [f32],
    inputs: usize,
}

impl Vectorized for Dots<'_> {
    #[inline(always)]
    fn run(self) {
        let rows = self.x.len() / self.inputs;
        let outputs = self.dots.chunks_exact_mut(rows);
        for (weights, dots) in self.weights.chunks_exact(self.inputs).zip(outputs) {
            let groups = dots.chunks_mut(GROUP);
            for (x, dots) in self.x.chunks(GROUP * self.inputs).zip(groups) {
                match dots.len() {
                    1 => group::<1>(x, weights, dots),
                    2 => group::<2>(x, weights, dots),
                    3 => group::<3>(x, weights, dots),
                    4 => group::<4>(x, weights, dots),
                    5 => group::<5>(x, weights, dots),
                    6 => group::<6>(x, weights, dots),
                    7 => group::<7>(x, weights, dots),
                    _ => group::<GROUP>(x, weights, dots),
                }
            }
        }
    }
}

/// The products of `ROWS` rows with one row of weights. Each sum runs in the same order whatever `ROWS` is.
#[inline(always)]
fn group<const ROWS: usize>(x: &[f32], weights: &[f32], dots: &mut [f32]) {
    let inputs = weights.len();
    let mut sums = [[0.0f32; LANES]; ROWS];
    let whole = inputs / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let weights = &weights[start..start + LANES];
        for (row, sums) in sums.iter_mut().enumerate() {
            let x = &x[row * inputs + start..][..LANES];
            for lane in 0..LANES {
                sums[lane] += x[lane] * weights[lane];
            }
        }
    }
    for (row, (sums, dot)) in sums.iter().zip(dots).enumerate() {
        let mut total = 0.0;
        for sum in sums {
            total += sum;
        }
        for (x, weight) in x[row * inputs + whole..].iter().zip(&weights[whole..]) {
            total += x * weight;
        }
        *dot = total;
    }
}
