//! Products of a few rows, as when captions grow token by token: each weight is read from memory once and
//! used for all rows. A general product would first copy the weights into an order of its own.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::vector::{LANES, prefetch};
use super::weights::Weights;

/// The most rows that are better off here.
pub const MOST: usize = 24;

/// Rows that share one look at a weight.
const GROUP: usize = 8;
/// Rows of weights that are added at once.
const INPUTS: usize = 8;
/// Columns of a task: enough to be read in one go, and few enough for their sums to stay in a core's first
/// cache.
const COLUMNS: std::ops::RangeInclusive<usize> = 64..=512;
/// Weights that one task reads, and that it looks at together.
const TASK: usize = 1 << 15;
const PIECE: usize = 1 << 12;

/// `x · weight`: rows of `inputs` numbers and `[inputs, outputs]`.
pub fn forward(x: &[f32], weight: Weights<'_>, [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let rows = x.len() / inputs;
    // Columns of a task; sums do not depend on them.
    let columns = outputs.div_ceil(rayon::current_num_threads());
    let columns = columns
        .next_multiple_of(LANES)
        .clamp(*COLUMNS.start(), *COLUMNS.end());
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
                    Arch::new().dispatch(AddScaled {
                        sums: &mut sums,
                        weights,
                        next: std::array::from_fn(|row| {
                            let start = (input + INPUTS + row) * outputs + first;
                            weight.at_hand(start..start + columns)
                        }),
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
    /// The weights that come after them, to be fetched meanwhile.
    next: [Option<&'a [f32]>; INPUTS],
    /// The first row's numbers; those of other rows are `inputs` apart.
    x: &'a [f32],
    inputs: usize,
    /// How many of the weights count.
    count: usize,
}

impl WithSimd for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let columns = self.weights[0].len();
        let groups = self.sums.chunks_mut(GROUP * columns);
        for (sums, x) in groups.zip(self.x.chunks(GROUP * self.inputs)) {
            let mut factors = [[0.0; INPUTS]; GROUP];
            for (factors, x) in factors.iter_mut().zip(x.chunks(self.inputs)) {
                factors[..self.count].copy_from_slice(&x[..self.count]);
            }
            match sums.len() / columns {
                1 => add::<S, 1>(simd, self.weights, self.next, &factors, sums),
                2 => add::<S, 2>(simd, self.weights, self.next, &factors, sums),
                3 => add::<S, 3>(simd, self.weights, self.next, &factors, sums),
                4 => add::<S, 4>(simd, self.weights, self.next, &factors, sums),
                5 => add::<S, 5>(simd, self.weights, self.next, &factors, sums),
                6 => add::<S, 6>(simd, self.weights, self.next, &factors, sums),
                7 => add::<S, 7>(simd, self.weights, self.next, &factors, sums),
                _ => add::<S, GROUP>(simd, self.weights, self.next, &factors, sums),
            }
        }
    }
}

/// A vector of columns after the other: its weights meet all rows in the registers.
#[inline(always)]
fn add<S: Simd, const ROWS: usize>(
    simd: S,
    weights: [&[f32]; INPUTS],
    next: [Option<&[f32]>; INPUTS],
    factors: &[[f32; INPUTS]; GROUP],
    sums: &mut [f32],
) {
    let columns = weights[0].len();
    let weights = weights.map(|weights| S::as_simd_f32s(&weights[..columns]));
    let vectors = columns / S::F32_LANES;
    let whole = weights.map(|(whole, _)| &whole[..vectors]);
    for index in 0..vectors {
        for next in next.iter().flatten() {
            prefetch(next, index * S::F32_LANES);
        }
        let weights = whole.map(|weights| weights[index]);
        for (row, factors) in factors.iter().enumerate().take(ROWS) {
            let sums = &mut sums[row * columns..][..columns];
            let sum = &mut S::as_mut_simd_f32s(sums).0[index];
            let mut total = *sum;
            for (factor, weights) in factors.iter().zip(weights) {
                let factor = simd.splat_f32s(*factor);
                total = simd.add_f32s(total, simd.mul_f32s(factor, weights));
            }
            *sum = total;
        }
    }
    for (row, factors) in factors.iter().enumerate().take(ROWS) {
        let sums = &mut sums[row * columns..][vectors * S::F32_LANES..columns];
        for (column, sum) in sums.iter_mut().enumerate() {
            for (factor, (_, rest)) in factors.iter().zip(weights) {
                *sum += factor * rest[column];
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
    let groups: Vec<Group> = x
        .chunks(GROUP * inputs)
        .map(|x| Group::new(x, inputs))
        .collect();
    // In pieces that fit a core's first cache, should they be widened.
    let piece = match weight {
        Weights::F32(_) => task,
        _ => (PIECE / inputs).max(1),
    };
    // `[outputs, rows]`, so that each task has a part of its own.
    let mut dots = vec![0.0; outputs * rows];
    dots.par_chunks_mut(task * rows)
        .enumerate()
        .for_each_init(Vec::new, |room, (index, dots)| {
            for (part, dots) in dots.chunks_mut(piece * rows).enumerate() {
                let start = (index * task + part * piece) * inputs;
                let len = dots.len() / rows * inputs;
                Arch::new().dispatch(Dots {
                    groups: &groups,
                    weights: weight.widened(start..start + len, room),
                    dots,
                    inputs,
                });
            }
        });
    in_rows(&dots, rows)
}

/// `[outputs, rows]` to `[rows, outputs]`.
pub fn in_rows(dots: &[f32], rows: usize) -> Vec<f32> {
    let outputs = dots.len() / rows.max(1);
    let mut out = vec![0.0; dots.len()];
    out.par_chunks_exact_mut(outputs.max(1))
        .enumerate()
        .for_each(|(row, out)| {
            for (out, dots) in out.iter_mut().zip(dots.chunks_exact(rows)) {
                *out = dots[row];
            }
        });
    out
}

/// Some rows, sixteen numbers of each after those of the one before.
struct Group {
    /// `[inputs / 16, rows, 16]`
    vectors: Vec<f32>,
    /// What is left of each row.
    rests: Vec<Vec<f32>>,
}

impl Group {
    fn new(x: &[f32], inputs: usize) -> Self {
        let whole = inputs / LANES * LANES;
        let rows = || x.chunks_exact(inputs);
        let vector = |start: usize| rows().flat_map(move |row| &row[start..start + LANES]);
        Self {
            vectors: (0..whole)
                .step_by(LANES)
                .flat_map(vector)
                .copied()
                .collect(),
            rests: rows().map(|row| row[whole..].to_vec()).collect(),
        }
    }
}

/// The products of every row with every row of weights.
struct Dots<'a> {
    groups: &'a [Group],
    weights: &'a [f32],
    /// `[weights, rows]`
    dots: &'a mut [f32],
    inputs: usize,
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Sums run over sixteen lanes, however many of them a vector has.
        match LANES / S::F32_LANES {
            1 => self.groups::<S, 1>(simd),
            2 => self.groups::<S, 2>(simd),
            4 => self.groups::<S, 4>(simd),
            _ => self.groups::<pulp::Scalar, LANES>(pulp::Scalar::new()),
        }
    }
}

impl Dots<'_> {
    #[inline(always)]
    fn groups<S: Simd, const PARTS: usize>(self, simd: S) {
        let rows = self.groups.iter().map(|group| group.rests.len()).sum();
        let mut weights = self.weights;
        for dots in self.dots.chunks_exact_mut(rows) {
            for (group, dots) in self.groups.iter().zip(dots.chunks_mut(GROUP)) {
                let inputs = self.inputs;
                match dots.len() {
                    1 => group.dots::<S, PARTS, 1>(simd, weights, inputs, dots),
                    2 => group.dots::<S, PARTS, 2>(simd, weights, inputs, dots),
                    3 => group.dots::<S, PARTS, 3>(simd, weights, inputs, dots),
                    4 => group.dots::<S, PARTS, 4>(simd, weights, inputs, dots),
                    5 => group.dots::<S, PARTS, 5>(simd, weights, inputs, dots),
                    6 => group.dots::<S, PARTS, 6>(simd, weights, inputs, dots),
                    7 => group.dots::<S, PARTS, 7>(simd, weights, inputs, dots),
                    _ => group.dots::<S, PARTS, GROUP>(simd, weights, inputs, dots),
                }
            }
            weights = &weights[self.inputs..];
        }
    }
}

impl Group {
    /// The products of `ROWS` rows with the first of the rows of weights. Each sum runs in the same order
    /// whatever `ROWS` is.
    #[inline(always)]
    fn dots<S: Simd, const PARTS: usize, const ROWS: usize>(
        &self,
        simd: S,
        weights: &[f32],
        inputs: usize,
        dots: &mut [f32],
    ) {
        let whole = inputs / LANES * LANES;
        let vectors = S::as_simd_f32s(&weights[..whole]).0.chunks_exact(PARTS);
        let rows = S::as_simd_f32s(&self.vectors).0.chunks_exact(PARTS * ROWS);
        let mut sums = [[simd.splat_f32s(0.0); PARTS]; ROWS];
        for (vectors, rows) in vectors.zip(rows) {
            for (sums, row) in sums.iter_mut().zip(rows.chunks_exact(PARTS)) {
                for ((sum, x), weights) in sums.iter_mut().zip(row).zip(vectors) {
                    *sum = simd.add_f32s(*sum, simd.mul_f32s(*x, *weights));
                }
            }
        }
        for ((mut parts, rest), dot) in sums.into_iter().zip(&self.rests).zip(dots) {
            let mut half = PARTS / 2;
            while half > 0 {
                for part in 0..half {
                    parts[part] = simd.add_f32s(parts[part], parts[part + half]);
                }
                half /= 2;
            }
            // It halves the vector in the same way.
            let total = simd.reduce_sum_f32s(parts[0]);
            let rest = rest.iter().zip(&weights[whole..inputs]);
            *dot = rest.fold(total, |sum, (x, weight)| sum + x * weight);
        }
    }
}
