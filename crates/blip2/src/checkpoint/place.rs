//! From the values of a file to the numbers of a parameter: checked, converted and, where linear layers
//! have their weights the other way round, transposed, all while a piece of them is near the processor.

use burn::tensor::{Bytes, DType, Element, bf16, f16};
use rayon::prelude::*;

use super::weights::Weight;
use crate::Blip2Error;

/// Bytes of a piece, unless that would be less than [`TILE`] rows: both it and what is written for it
/// stay in the cache of a core.
const PIECE: usize = 1 << 18;

/// The side of the squares in which matrices are transposed.
const TILE: usize = 32;

/// The values of `weight` as `dtype`; those of a matrix of `columns` columns are transposed.
///
/// # Errors
///
/// As [`Weight::read`].
pub(super) fn placed(
    weight: &Weight,
    dtype: DType,
    columns: Option<usize>,
    buffer: &mut Vec<u8>,
) -> Result<Bytes, Blip2Error> {
    use DType::{BF16, F16, F32, F64};
    let place = Placing {
        weight,
        columns,
        buffer,
    };
    // What is not finite is refused, so that no conversion needs to care for it.
    match (weight.dtype, dtype) {
        (F16, F16) | (BF16, BF16) => place.with(u16::from_le_bytes),
        (F32, F32) => place.with(u32::from_le_bytes),
        (F32, BF16) => place.with(|four| nearest_bf16(u32::from_le_bytes(four))),
        (F32, F16) => place.with(|four| f16::from_f32(f32::from_le_bytes(four)).to_bits()),
        (BF16, F32) => place.with(|two| u32::from(u16::from_le_bytes(two)) << 16),
        (F16, F32) => place.with(|two| widened(u16::from_le_bytes(two))),
        (BF16, F16) => place.with(|two| f16::from_f32(bf16::from_le_bytes(two).to_f32()).to_bits()),
        (F16, BF16) => place.with(|two| nearest_bf16(widened(u16::from_le_bytes(two)))),
        (F64, F32) => place.with(|eight| (f64::from_le_bytes(eight) as f32).to_bits()),
        // f64 in half is not worth a loop of its own.
        _ => {
            let bytes = weight.read(dtype)?;
            Ok(match (columns, dtype.size()) {
                (Some(columns), _) => transposed(&bytes, dtype, columns),
                (None, 2) => Bytes::from_elems(numbers(&bytes, u16::from_le_bytes).collect()),
                (None, _) => Bytes::from_elems(numbers(&bytes, u32::from_le_bytes).collect()),
            })
        }
    }
}

/// A row-major matrix of `columns` columns, transposed.
pub(super) fn transposed(bytes: &[u8], dtype: DType, columns: usize) -> Bytes {
    // Burn copies bytes that are not aligned for their type, so they are made as numbers.
    match dtype.size() {
        2 => Bytes::from_elems(transposed_as(bytes, columns, u16::from_le_bytes)),
        8 => Bytes::from_elems(transposed_as(bytes, columns, u64::from_le_bytes)),
        _ => Bytes::from_elems(transposed_as(bytes, columns, u32::from_le_bytes)),
    }
}

fn transposed_as<const SIZE: usize, E: Copy + Default + Send>(
    bytes: &[u8],
    columns: usize,
    number: impl Fn([u8; SIZE]) -> E + Sync,
) -> Vec<E> {
    let (elements, _) = bytes.as_chunks::<SIZE>();
    let mut target = vec![E::default(); elements.len()];
    let rows = elements.len() / columns.max(1);
    turn(elements, columns, [0, rows], &mut target, true, &number);
    target
}

/// A weight on its way.
struct Placing<'a> {
    weight: &'a Weight,
    columns: Option<usize>,
    buffer: &'a mut Vec<u8>,
}

impl Placing<'_> {
    fn with<const SIZE: usize, E: Element + Default>(
        self,
        number: impl Fn([u8; SIZE]) -> E + Sync,
    ) -> Result<Bytes, Blip2Error> {
        let Self {
            weight,
            columns,
            buffer,
        } = self;
        let count: usize = weight.shape.iter().product();
        let Some(columns) = columns.filter(|&columns| columns > 0) else {
            let mut target = Vec::with_capacity(count);
            weight.pieces(PIECE, buffer, |piece| {
                target.extend(numbers(piece, &number))
            })?;
            return Ok(Bytes::from_elems(target));
        };
        let rows = count / columns;
        let mut target = vec![E::default(); count];
        let mut first = 0;
        let row_bytes = columns * SIZE;
        let whole = !weight.in_pieces();
        let height = match whole {
            true => rows,
            false => (PIECE / row_bytes / TILE).max(1) * TILE,
        };
        weight.pieces(height * row_bytes, buffer, |piece| {
            let (elements, _) = piece.as_chunks::<SIZE>();
            turn(
                elements,
                columns,
                [first, rows],
                &mut target,
                whole,
                &number,
            );
            first += height;
        })?;
        Ok(Bytes::from_elems(target))
    }
}

fn numbers<'a, const SIZE: usize, E: 'a>(
    bytes: &'a [u8],
    number: impl Fn([u8; SIZE]) -> E + 'a,
) -> impl Iterator<Item = E> + 'a {
    let (elements, _) = bytes.as_chunks::<SIZE>();
    elements.iter().map(move |element| number(*element))
}

/// Writes some rows of `columns` columns into the transposed matrix: they are those from `first` on, of
/// `rows`. Works tile by tile through a small buffer, for the elements of a column are far apart in
/// memory.
fn turn<const SIZE: usize, E: Copy + Default + Send>(
    elements: &[[u8; SIZE]],
    columns: usize,
    [first, rows]: [usize; 2],
    target: &mut [E],
    side_by_side: bool,
    number: &(impl Fn([u8; SIZE]) -> E + Sync),
) {
    let of_piece = elements.len() / columns.max(1);
    let strips = target.par_chunks_mut((rows * TILE).max(1)).enumerate();
    let alone = if side_by_side { 1 } else { usize::MAX };
    strips.with_min_len(alone).for_each(|(strip, target)| {
        let left = strip * TILE;
        let width = TILE.min(columns - left);
        let mut tile = [[E::default(); TILE]; TILE];
        for top in (0..of_piece).step_by(TILE) {
            let height = TILE.min(of_piece - top);
            for (row, tile) in tile.iter_mut().enumerate().take(height) {
                let source = &elements[(top + row) * columns + left..][..width];
                for (value, element) in tile.iter_mut().zip(source) {
                    *value = number(*element);
                }
            }
            for column in 0..width {
                let target = &mut target[column * rows + first + top..][..height];
                // Nearly all are whole tiles: a known length is unrolled.
                match height {
                    TILE => copy_column(&mut target[..TILE], &tile, column),
                    _ => copy_column(target, &tile, column),
                }
            }
        }
    });
}

#[inline(always)]
fn copy_column<E: Copy>(target: &mut [E], tile: &[[E; TILE]; TILE], column: usize) {
    for (value, tile) in target.iter_mut().zip(tile) {
        *value = tile[column];
    }
}

/// The bits of the bf16 nearest to the finite f32 of these bits, the even one of two as near.
fn nearest_bf16(bits: u32) -> u16 {
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The bits of the f32 equal to the finite f16 of these bits.
fn widened(bits: u16) -> u32 {
    // The exponent counts from another start; a product moves it, for subnormal numbers too.
    const MOVED: f32 = f32::from_bits((127 + 127 - 15) << 23);
    let sign = u32::from(bits & 0x8000) << 16;
    let size = f32::from_bits(u32::from(bits & 0x7fff) << 13) * MOVED;
    size.to_bits() | sign
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn matrices_of_any_size_are_transposed() {
        let (rows, columns) = (70, 33);
        let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
        for dtype in [DType::F16, DType::F32, DType::F64] {
            let data = TensorData::new(values.clone(), [rows, columns]).convert_dtype(dtype);
            let bytes = transposed(data.as_bytes(), dtype, columns);
            let turned = TensorData::from_bytes(bytes, [columns, rows], dtype);
            let turned: Vec<f32> = turned.convert_dtype(DType::F32).try_to_vec().unwrap();
            // f16 holds whole numbers up to 2048; beyond, both sides round alike.
            let values: Vec<f32> = data.convert_dtype(DType::F32).try_to_vec().unwrap();
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(turned[column * rows + row], values[row * columns + column]);
                }
            }
        }
    }

    #[test]
    fn values_are_converted_as_burn_does() {
        let dtypes = [DType::F16, DType::BF16, DType::F32, DType::F64];
        // Subnormal in f16 and normal, exact ties of bf16 and f16 and what lies between.
        let values = (0u32..6000).map(|value| {
            let size = f32::from_bits(0x3300_0000 + value * 0x7fff);
            if value % 2 == 0 { size } else { -size }
        });
        let values: Vec<f32> = values.filter(|value| value.abs() < 60000.0).collect();
        for stored in dtypes {
            for kept in &dtypes[..3] {
                let shape = [values.len()];
                let data = TensorData::new(values.clone(), shape).convert_dtype(stored);
                let bytes = data.as_bytes().to_vec();
                let read = move || Ok(bytes.clone());
                let file = Path::new("weights").into();
                let weight = Weight::new(file, "key".into(), stored, shape.to_vec(), read);
                let ours = placed(&weight, *kept, None, &mut Vec::new()).unwrap();
                let theirs = data.convert_dtype(*kept);
                assert_eq!(&ours[..], theirs.as_bytes(), "{stored:?} as {kept:?}");
            }
        }
    }

    #[test]
    fn half_precision_is_widened_exactly() {
        for bits in (0..0x7c00).chain(0x8000..0xfc00) {
            let wide = f16::from_bits(bits).to_f32();
            assert_eq!(widened(bits), wide.to_bits());
            let wide = wide.to_bits() + u32::from(bits) * 3;
            let near = bf16::from_f32(f32::from_bits(wide));
            assert_eq!(nearest_bf16(wide), near.to_bits());
        }
    }
}
