//! The numbers of a weight in any precision.

use std::ops::Range;

use burn::tensor::{DType, bf16, f16};
use burn_flex::{FlexQTensor, FlexTensor};
use half::slice::HalfFloatSliceExt;

use super::nibbles::Nibbles;
use super::vector::{Vectorized, vectorized};

/// The numbers of a dense matrix.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// bfloat16.
    BF16(&'a [bf16]),
    /// Whole numbers of eight bits; blocks of as many numbers each are multiples of a scale.
    I8 {
        /// The multiples.
        numbers: &'a [i8],
        /// One for each block.
        scales: &'a [f32],
    },
    /// Whole numbers of four bits, as [`nibbles`](super::nibbles) lays them out.
    I4(Nibbles<'a>),
}

impl<'a> Weights<'a> {
    /// The numbers of `weight`, which must be dense and in one of these precisions.
    pub fn of(weight: &'a FlexTensor) -> Self {
        const DENSE: &str = "a dense weight";
        match weight.dtype() {
            DType::F32 => Self::F32(weight.as_slice().expect(DENSE)),
            DType::F16 => Self::F16(weight.as_slice().expect(DENSE)),
            DType::BF16 => Self::BF16(weight.as_slice().expect(DENSE)),
            other => unreachable!("weights in {other:?} take another path"),
        }
    }

    /// The numbers of a quantized weight, whose blocks lie one after the other.
    pub fn of_quantized(weight: &'a FlexQTensor) -> Self {
        if let Some(nibbles) = Nibbles::of(weight) {
            return Self::I4(nibbles);
        }
        Self::I8 {
            numbers: weight.tensor().as_slice().expect("a dense weight"),
            scales: weight.scales(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
            Self::BF16(numbers) => numbers.len(),
            Self::I8 { numbers, .. } => numbers.len(),
            Self::I4(nibbles) => nibbles.len(),
        }
    }

    /// Those of `range`, if they are there and in f32.
    pub fn at_hand(&self, range: Range<usize>) -> Option<&'a [f32]> {
        match self {
            Self::F32(numbers) => numbers.get(range),
            _ => None,
        }
    }

    /// Those of `range` in f32; widened into `room` if they are narrower.
    pub fn widened<'b>(&'b self, range: Range<usize>, room: &'b mut Vec<f32>) -> &'b [f32] {
        // What is there already is written over.
        room.resize(
            if matches!(self, Self::F32(_)) {
                0
            } else {
                range.len()
            },
            0.0,
        );
        match self {
            Self::F32(numbers) => return &numbers[range],
            Self::F16(numbers) => numbers[range].convert_to_f32_slice(room),
            Self::BF16(numbers) => vectorized(Widen {
                numbers: &numbers[range],
                out: room,
            }),
            Self::I8 { numbers, scales } => vectorized(Multiply {
                first: range.start,
                block: numbers.len() / scales.len(),
                numbers: &numbers[range],
                scales,
                out: room,
            }),
            Self::I4(nibbles) => nibbles.widen(range.start, room),
        }
        room
    }
}

struct Widen<'a> {
    numbers: &'a [bf16],
    out: &'a mut [f32],
}

impl Vectorized for Widen<'_> {
    #[inline(always)]
    fn run(self) {
        for (out, number) in self.out.iter_mut().zip(self.numbers) {
            // The upper half of an f32; the crate's own conversion looks for NaN first.
            *out = f32::from_bits(u32::from(number.to_bits()) << 16);
        }
    }
}

struct Multiply<'a> {
    /// Where in the weight the numbers begin.
    first: usize,
    block: usize,
    numbers: &'a [i8],
    scales: &'a [f32],
    out: &'a mut [f32],
}

impl Vectorized for Multiply<'_> {
    #[inline(always)]
    fn run(self) {
        let mut done = 0;
        while done < self.out.len() {
            let at = self.first + done;
            let end = (done + self.block - at % self.block).min(self.out.len());
            let scale = self.scales[at / self.block];
            let numbers = &self.numbers[done..end];
            for (out, &number) in self.out[done..end].iter_mut().zip(numbers) {
                *out = scale * f32::from(number);
            }
            done = end;
        }
    }
}
