//! What the towers compute otherwise than Burn would.
//!
//! On a CPU (`flex`, in f32) linear layers, attention, norms, activations and dropout are operations of
//! their own: one pass over the numbers, on all threads, with a gradient that keeps only what it needs.
//! On every other backend, and in half precision, the same functions are chains of Burn's operations.
//!
//! Weights of a frozen tower may be kept in half precision: it takes half the memory and rounds nothing
//! but its weights. They are widened for a product in blocks that stay in the processor's cache; the loss
//! of a large vocabulary is computed without all of its logits; and blocks of a tower are recomputed for
//! the backward pass, so that their graph is not kept.

mod activation;
mod adamw;
mod attention;
mod cross_entropy;
mod dropout;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod fused;
mod layer_norm;
mod linear;
mod precision;
mod products;
mod recompute;

pub use activation::Activation;
pub use adamw::{AdamWStep, squared_sum};
pub use attention::attention;
pub use cross_entropy::{smoothed_cross_entropy, tied_cross_entropy};
#[cfg(feature = "flex")]
use dropout::DropoutSeed;
pub use dropout::dropout;
pub use layer_norm::LayerNorm;
pub use linear::{linear, tied_logits};
pub use precision::{Bits, Dequantized, LinearsTo, MatricesTo, dequantized, readable};
pub use products::Products;
pub use recompute::{Draws, recomputed};

/// Whether `device` is one of CubeCL's: CUDA, ROCm, Metal, Vulkan, wgpu or its CPU.
pub(crate) fn is_cube(device: &burn::tensor::Device) -> bool {
    #[cfg(feature = "cube")]
    return matches!(
        device.clone().inner().as_dispatch(),
        burn::backend::DispatchDevice::Cube(_)
    );
    #[cfg(not(feature = "cube"))]
    {
        let _ = device;
        false
    }
}

/// Whether `device` is the CPU by `flex`, with or without autodiff.
pub fn is_flex(device: &burn::tensor::Device) -> bool {
    #[cfg(feature = "flex")]
    return *device == burn::tensor::Device::flex();
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}
