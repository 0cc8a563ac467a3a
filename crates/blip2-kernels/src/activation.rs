//! The activations of the towers.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::Tensor;
use burn::tensor::activation::{relu, sigmoid};

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
            // Burn's `gelu` has this value, but on most backends the slope of the approximation by tanh, with
            // constants of six digits: 1e-3 off.
            Self::Gelu => (x.clone() * FRAC_1_SQRT_2).erf().add_scalar(1.0).mul(x) * 0.5,
            Self::QuickGelu => sigmoid(x.clone().mul_scalar(1.702)).mul(x),
            Self::Relu => relu(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;

    /// `x · Φ(x)` and `Φ(x) + x · φ(x)` in double precision, by the `erfc` of Python's `math`.
    #[test]
    fn gelu_and_its_slope_are_exact() {
        let device = Device::default().autodiff();
        let x = Tensor::<1>::from_floats([-3.0, -1.0, -0.1, 0.0, 0.5, 2.0], &device);
        let x = x.require_grad();
        let value = Activation::Gelu.forward(x.clone());
        let slope = x.grad(&value.clone().sum().backward()).unwrap();
        let close = |found: Tensor<1>, expected: [f32; 6]| {
            let expected = Tensor::<1>::from_floats(expected, &found.device());
            let tolerance = Tolerance::absolute(1e-6);
            found
                .into_data()
                .assert_approx_eq::<f32>(&expected.into_data(), tolerance);
        };
        close(
            value.inner(),
            [
                -0.0040496941,
                -0.15865525,
                -0.046017216,
                0.0,
                0.34573123,
                1.9544997,
            ],
        );
        close(
            slope,
            [
                -0.011945647,
                -0.083315471,
                0.42047691,
                0.5,
                0.86749512,
                1.0852318,
            ],
        );
    }
}
