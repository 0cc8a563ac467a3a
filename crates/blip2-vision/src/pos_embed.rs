//! Position embeddings for another image size.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use crate::VisionError;

/// The cubic's free parameter, torch's choice.
const A: f64 = -0.75;

/// Interpolates the patch positions to `new_grid` (rows, columns); the class position stays.
///
/// Bicubic with half-pixel centres (`align_corners=False`) and no antialiasing, as LAVIS does for
/// EVA and transformers for all. (LAVIS aligns corners for CLIP; we don't.) Two matrix products, so
/// that every device gives the same numbers, in f32 whatever the type of `pos`.
///
/// # Shapes
/// - `pos`: `[1, 1 + side², hidden]`
/// - returns: `[1, 1 + rows · columns, hidden]`
///
/// # Errors
///
/// If `pos` is not one class position and a square of patches, or `new_grid` is empty.
pub fn interpolate_position_embedding(
    pos: Tensor<3>,
    new_grid: (usize, usize),
) -> Result<Tensor<3>, VisionError> {
    let shape @ [count, tokens, width] = pos.dims();
    let error = |reason: String| VisionError::PositionEmbedding { shape, reason };
    let patches = tokens.saturating_sub(1);
    let side = patches.isqrt();
    if count != 1 || side == 0 || side * side != patches {
        let reason = "is not [1, 1 + side², hidden]: one class position and a square of patches";
        return Err(error(reason.into()));
    }
    let (rows, columns) = new_grid;
    if rows == 0 || columns == 0 {
        return Err(error(format!(
            "can't be interpolated to {rows} × {columns} patches"
        )));
    }
    if new_grid == (side, side) {
        return Ok(pos);
    }
    let (device, dtype) = (pos.device(), pos.dtype());
    let class = pos.clone().narrow(1, 0, 1);
    let grid = pos
        .narrow(1, 1, patches)
        .cast(FloatDType::F32)
        .reshape([side, side * width]);
    let grid = cubic_weights(side, rows, &device)
        .matmul(grid)
        .reshape([rows, side, width]);
    let grid = cubic_weights(side, columns, &device)
        .unsqueeze::<3>()
        .repeat_dim(0, rows)
        .matmul(grid)
        .reshape([1, rows * columns, width])
        .cast(dtype);
    Ok(Tensor::cat(vec![class, grid], 1))
}

/// `[new, old]`: the share of each old position in each new one; positions beyond the border
/// repeat the border.
fn cubic_weights(old: usize, new: usize, device: &Device) -> Tensor<2> {
    let mut weights = vec![0.0; new * old];
    for (index, row) in weights.chunks_exact_mut(old).enumerate() {
        let source = (index as f64 + 0.5) * old as f64 / new as f64 - 0.5;
        let first = source.floor() as i64 - 1;
        for neighbour in first..first + 4 {
            let column = neighbour.clamp(0, old as i64 - 1) as usize;
            row[column] += cubic((source - neighbour as f64).abs()) as f32;
        }
    }
    Tensor::from_data(
        TensorData::new(weights, [new, old]),
        (device, FloatDType::F32.into()),
    )
}

/// The cubic convolution kernel at `distance` < 2.
///
/// Reference: Keys, "Cubic Convolution Interpolation for Digital Image Processing".
fn cubic(distance: f64) -> f64 {
    if distance <= 1.0 {
        ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
    } else {
        ((A * distance - 5.0 * A) * distance + 8.0 * A) * distance - 4.0 * A
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_positions_stay_constant_and_the_class_position_is_kept() {
        let device = Device::default();
        let class = Tensor::<3>::full([1, 1, 2], 9.0, &device);
        let patches = Tensor::<3>::full([1, 16, 2], -2.0, &device);
        let pos = Tensor::cat(vec![class, patches], 1);
        let values: Vec<f32> = interpolate_position_embedding(pos, (7, 5))
            .unwrap()
            .into_data()
            .try_to_vec()
            .unwrap();
        assert_eq!(values.len(), 2 * (1 + 35));
        assert_eq!(values[..2], [9.0, 9.0]);
        // A cubic's weights sum to one.
        assert!(values[2..].iter().all(|value| (value + 2.0).abs() < 1e-5));
    }

    #[test]
    fn what_is_not_a_square_of_patches_is_refused() {
        let device = Device::default();
        for tokens in [1, 12, 16] {
            let pos = Tensor::<3>::zeros([1, tokens, 2], &device);
            let error = interpolate_position_embedding(pos, (3, 3)).unwrap_err();
            assert!(error.to_string().contains("side²"), "{error}");
        }
        let pos = Tensor::<3>::zeros([1, 5, 2], &device);
        assert!(interpolate_position_embedding(pos, (0, 3)).is_err());
    }
}
