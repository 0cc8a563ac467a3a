//! The activations of the towers.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, relu, sigmoid};

/// What follows a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// The exact GELU, with the error function.
    Gelu,
    /// CLIP's `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`
    Relu,
}

impl Activation {
    /// Applies it by Burn's own operations.
    pub(crate) fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::None => x,
            Self::Gelu if x.is_tracked() => tracked_gelu(x),
            Self::Gelu => gelu(x),
            Self::QuickGelu => sigmoid(x.clone().mul_scalar(1.702)).mul(x),
            Self::Relu => relu(x),
        }
    }
}

/// Burn's `gelu` is exact, but not its slope, on most backends: that of the approximation by tanh, with constants
/// of six digits, 1e-3 off. So the line that touches the curve in `x` goes into the graph, which keeps the slope
/// alone.
fn tracked_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let at = x.clone().detach();
    let distribution = ((at.clone() * FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
    let density = (at.clone().square() * -0.5).exp() * (FRAC_2_SQRT_PI * FRAC_1_SQRT_2 / 2.0);
    let slope = distribution + at.clone() * density;
    gelu(at.clone()) + (x - at) * slope
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData, Tolerance};

    use super::*;

    /// `x`, `x · Φ(x)` and `Φ(x) + x · φ(x)`, the last two by the `erfc` of Python's `math`.
    const GELU: [[f32; 3]; 6] = [
        [-3.0, -0.00405, -0.011946],
        [-1.0, -0.158655, -0.083315],
        [-0.1, -0.046017, 0.420477],
        [0.0, 0.0, 0.5],
        [0.5, 0.345731, 0.867495],
        [2.0, 1.9545, 1.085232],
    ];

    #[test]
    fn gelu_and_its_slope_are_exact() {
        let column = |index: usize| GELU.map(|row| row[index]);
        let device = Device::default().autodiff();
        let x = Tensor::<1>::from_floats(column(0), &device).require_grad();
        let value = Activation::Gelu.forward(x.clone());
        let slope = x.grad(&value.clone().sum().backward()).unwrap();
        for (found, index) in [(value.inner(), 1), (slope, 2)] {
            let expected = TensorData::from(column(index));
            let tolerance = Tolerance::absolute(1e-6);
            found
                .into_data()
                .assert_approx_eq::<f32>(&expected, tolerance);
        }
        let untracked = Tensor::<1>::from_floats(column(0), &device.inner());
        let value = Activation::Gelu.forward(untracked).into_data();
        value.assert_approx_eq::<f32>(&column(1).into(), Tolerance::absolute(1e-6));
    }
}
