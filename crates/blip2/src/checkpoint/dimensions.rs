//! The dimensions of towers in files, none of whose tensors are read.

use std::path::Path;

use blip2_lm::OptConfig;
use blip2_vision::VisionConfig;

use super::architecture::{infer_opt, infer_vision};
use super::import::Origin;
use crate::Blip2Error;

/// The image encoder that [`load_vision`](super::load_vision) would make of the file or folder `path`; none
/// if there is none in it.
///
/// # Errors
///
/// If it can't be read, or does not say a dimension.
pub fn vision_dimensions(path: &Path) -> Result<Option<VisionConfig>, Blip2Error> {
    let Origin {
        config, weights, ..
    } = Origin::open(path)?;
    match config.vision {
        Some(config) => Ok(Some(config)),
        None => infer_vision(&weights),
    }
}

/// The language model that [`load_opt`](super::load_opt) would make of `path`; none if there is none in it.
///
/// # Errors
///
/// As [`vision_dimensions`].
pub fn opt_dimensions(path: &Path) -> Result<Option<OptConfig>, Blip2Error> {
    let Origin {
        config, weights, ..
    } = Origin::open(path)?;
    match config.text {
        Some(config) => Ok(Some(config)),
        None => infer_opt(&weights),
    }
}
