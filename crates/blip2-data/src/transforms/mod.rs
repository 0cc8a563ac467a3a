//! From an image file to the numbers that an image encoder takes.

mod decode;
mod hugging_face;
mod process;

pub use decode::{DecodeLimits, decode, probe};
pub use process::{ImageProcessor, ImageProcessorConfig, Resample};
