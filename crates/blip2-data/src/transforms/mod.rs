//! From an image file to the numbers that an image encoder takes.
//!
//! The oracle is transformers' `BlipImageProcessor` on `PIL.Image.open(path).convert("RGB")`, in its
//! Pillow form (`BlipImageProcessorPil`; before transformers 5 it was the default). The torchvision
//! form rounds otherwise; both blend images with alpha over white if they are given them unconverted.

mod augment;
mod decode;
mod hugging_face;
mod jpeg;
mod process;
mod resize;

pub use augment::{Augmentation, AugmentationConfig, CropBox, Operation, RandAugmentConfig, View};
pub use decode::{DecodeLimits, decode, decode_bytes, decode_upright, probe};
pub use process::{ImageProcessor, ImageProcessorConfig, Resample};
