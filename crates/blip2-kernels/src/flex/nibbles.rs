//! Weights in four bits, two to a byte.
//!
//! `flex` keeps a byte a number whatever a scheme says, so that Burn's own four bits save no memory over its
//! eight. Here a row is cut in blocks. A block is a scale and half as many bytes as it has numbers: the lower
//! halves of the bytes are the first half of its numbers, the upper ones the second, so that sixteen bytes
//! give two vectors. A number is the scale times (its four bits - 8), and the scale is such that the number
//! furthest from zero is met: -8 times the scale.

use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexQTensor, FlexTensor, Layout};
use rayon::prelude::*;

use super::vector::{Vectorized, task_len, vectorized};
use crate::Bits;

/// Four bits from zero to the end on the longer side.
const ZERO: f32 = 8.0;

/// The scheme's mark. Its own readers in Burn do not know it: they find fewer bytes than numbers and panic.
const STORE: QuantStore = QuantStore::PackedNative(0);

/// Whether a weight of this scheme is laid out so.
pub fn is_packed(scheme: &QuantScheme) -> bool {
    scheme.value == QuantValue::Q4S && scheme.store == STORE
}

/// The numbers of a packed weight.
#[derive(Debug, Clone, Copy)]
pub struct Nibbles<'a> {
    bytes: &'a [i8],
    scales: &'a [f32],
}

impl<'a> Nibbles<'a> {
    /// Those of `weight`, if it is packed.
    pub fn of(weight: &'a FlexQTensor) -> Option<Self> {
        use burn::backend::TensorMetadata;

        match weight.dtype() {
            DType::QFloat(scheme) if is_packed(&scheme) => Some(Self {
                bytes: weight.tensor().storage(),
                scales: weight.scales(),
            }),
            _ => None,
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        2 * self.bytes.len()
    }

    /// Writes the numbers from `first` on to `out`.
    pub fn widen(&self, first: usize, out: &mut [f32]) {
        vectorized(Widen {
            nibbles: *self,
            first,
            out,
        });
    }
}

struct Widen<'a> {
    nibbles: Nibbles<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl Vectorized for Widen<'_> {
    #[inline(always)]
    fn run(self) {
        let Nibbles { bytes, scales } = self.nibbles;
        let half = bytes.len() / scales.len();
        let (mut at, mut out) = (self.first, self.out);
        while !out.is_empty() {
            let (index, inside) = (at / (2 * half), at % (2 * half));
            let (bytes, scale) = (&bytes[index * half..][..half], scales[index]);
            let count = (2 * half - inside).min(out.len());
            let (block, rest) = out.split_at_mut(count);
            if count == 2 * half {
                let (low, high) = block.split_at_mut(half);
                for ((low, high), &byte) in low.iter_mut().zip(high).zip(bytes) {
                    *low = scale * f32::from((byte & 15) - 8);
                    *high = scale * f32::from(((byte as u8) >> 4) as i8 - 8);
                }
            } else {
                for (place, out) in (inside..).zip(block) {
                    let byte = bytes[place % half] as u8;
                    let bits = if place < half { byte & 15 } else { byte >> 4 };
                    *out = scale * f32::from(bits as i8 - 8);
                }
            }
            at += count;
            out = rest;
        }
    }
}

/// Rounds a weight whose rows lie along the last dimension; none if they can't be cut in blocks.
pub fn packed(numbers: &[f32], shape: &[usize]) -> Option<FlexQTensor> {
    let block = Bits::Four.block(*shape.last()?)?;
    let half = block / 2;
    let mut bytes = vec![0i8; numbers.len() / 2];
    let mut scales = vec![0.0f32; numbers.len() / block];
    let task = (task_len(1) / block).max(1);
    bytes
        .par_chunks_mut(task * half)
        .zip(scales.par_chunks_mut(task))
        .zip(numbers.par_chunks(task * block))
        .for_each(|((bytes, scales), numbers)| {
            let blocks = numbers
                .chunks_exact(block)
                .zip(bytes.chunks_exact_mut(half));
            for ((numbers, bytes), scale) in blocks.zip(scales) {
                *scale = pack(numbers, bytes);
            }
        });
    let scheme = QuantScheme::default()
        .with_value(QuantValue::Q4S)
        .with_store(STORE)
        .per_block([block as u8], ScaleDtype::F32);
    // The layout is that of the weight; that there are half as many bytes, only this module knows.
    let layout = Layout::contiguous(Shape::from(shape.to_vec()));
    let tensor = FlexTensor::new(Bytes::from_elems(bytes), layout, DType::I8);
    Some(FlexQTensor::new(tensor, scheme, scales, None))
}

/// Rounds a block; returns its scale.
fn pack(numbers: &[f32], bytes: &mut [i8]) -> f32 {
    let furthest = |most: f32, &number: &f32| match number.abs() > most.abs() {
        true => number,
        false => most,
    };
    let scale = numbers.iter().fold(0.0, furthest) / -ZERO;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let bits = |number: f32| ((number * inverse).round() + ZERO).clamp(0.0, 15.0) as u8;
    let (low, high) = numbers.split_at(bytes.len());
    for (byte, (&low, &high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
        *byte = (bits(low) | (bits(high) << 4)) as i8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count)
            .map(|index| ((index * 37 % 101) as f32 - 50.0) * 0.01 * (1 + index / 96) as f32)
            .collect()
    }

    /// Half a step of the scale, which is an eighth of the largest; a whole one where the scale has no
    /// number as far on the other side.
    #[test]
    fn a_number_is_off_by_a_step_at_most_wherever_the_look_begins() {
        for columns in [24, 32, 96] {
            let numbers = numbers(5 * columns);
            let packed = packed(&numbers, &[5, columns]).unwrap();
            let nibbles = Nibbles::of(&packed).unwrap();
            assert_eq!(nibbles.len(), numbers.len());
            let mut whole = vec![0.0; numbers.len()];
            nibbles.widen(0, &mut whole);
            let block = Bits::Four.block(columns).unwrap();
            for (found, numbers) in whole.chunks(block).zip(numbers.chunks(block)) {
                let largest = numbers.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                for (found, number) in found.iter().zip(numbers) {
                    assert!((found - number).abs() <= largest / 8.0 * 1.001);
                }
                let off: f32 = found.iter().zip(numbers).map(|(a, b)| (a - b).abs()).sum();
                assert!(off / block as f32 <= largest / 16.0);
            }
            for (first, count) in [(1, 7), (13, 50), (columns + 3, 2 * columns)] {
                let mut part = vec![0.0; count];
                nibbles.widen(first, &mut part);
                assert_eq!(part, whole[first..first + count]);
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_multiples_are_met() {
        let mut numbers = vec![0.0; 32];
        numbers.extend((0..32).map(|index| (index % 16) as f32 - 8.0));
        let packed = packed(&numbers, &[2, 32]).unwrap();
        let mut found = vec![1.0; 64];
        Nibbles::of(&packed).unwrap().widen(0, &mut found);
        assert_eq!(found, numbers);
    }

    #[test]
    fn blocks_divide_rows_into_pairs() {
        let found = [2560, 768, 20, 22, 72, 67, 6].map(|columns| Bits::Four.block(columns));
        let expected = [Some(32), Some(32), Some(20), Some(22), Some(24), None, None];
        assert_eq!(found, expected);
    }
}
