//! Image encoders and language models alone.

use std::path::Path;

use blip2_lm::{Opt, OptConfig};
use blip2_vision::{VisionConfig, VisionTransformer};
use burn::module::Module;
use burn::tensor::Device;

use super::architecture::{infer_opt, infer_vision, list};
use super::fill::{Precision, fill};
use super::import::Origin;
use super::names::{Layout, Part};
use super::weights::Weights;
use crate::Blip2Error;

/// Reads an image encoder from a folder or file of any layout that has one. `architecture` says
/// what the file can't (a bare `.pth`), and may ask for another size of images. Matrices are kept
/// as `matrices` says.
///
/// # Errors
///
/// As [`Import::open`](super::Import::open) and [`Checkpoint::load`](super::Checkpoint::load); keys of
/// other parts are passed over.
pub fn load_vision(
    path: &Path,
    architecture: Option<&VisionConfig>,
    matrices: Precision,
    device: &Device,
) -> Result<(VisionConfig, VisionTransformer), Blip2Error> {
    let Origin {
        config, weights, ..
    } = Origin::open(path)?;
    let config = match architecture.cloned().or(config.vision) {
        Some(config) => config,
        None => infer_vision(&weights)?.ok_or_else(|| no_tower(path, "image encoder"))?,
    };
    let module = config.init(device)?;
    // Published encoders have a block more than BLIP-2 uses.
    let beyond = |path: &str| block_index(path).is_some_and(|at| at >= config.num_hidden_layers);
    let strict = matches!(weights.layout, Layout::Vision(_));
    let module = fill_tower(
        module,
        Part::VisionBackbone,
        &weights,
        matrices,
        strict,
        beyond,
        device,
    )?;
    Ok((config, module))
}

/// Reads an OPT language model from a folder or file of any layout that has one.
///
/// # Errors
///
/// As [`load_vision`].
pub fn load_opt(
    path: &Path,
    architecture: Option<&OptConfig>,
    matrices: Precision,
    device: &Device,
) -> Result<(OptConfig, Opt), Blip2Error> {
    let Origin {
        config, weights, ..
    } = Origin::open(path)?;
    let config = match architecture.cloned().or(config.text) {
        Some(config) => config,
        None => infer_opt(&weights)?.ok_or_else(|| no_tower(path, "OPT language model"))?,
    };
    let module = config.init(device)?;
    let strict = weights.layout == Layout::Opt;
    let module = fill_tower(
        module,
        Part::TextBackbone,
        &weights,
        matrices,
        strict,
        |_| false,
        device,
    )?;
    Ok((config, module))
}

/// Gives a tower its weights, if every key of it has its place. `strict` files hold nothing but the
/// tower; `beyond` are paths that may be left out.
fn fill_tower<M: Module>(
    module: M,
    part: Part,
    weights: &Weights,
    matrices: Precision,
    strict: bool,
    beyond: impl Fn(&str) -> bool,
    device: &Device,
) -> Result<M, Blip2Error> {
    let expected = list(part, &module);
    let mut keys: Vec<String> = weights
        .tensors
        .iter()
        .filter(|(address, _)| address.part == part && !expected.contains_key(address))
        .filter(|(address, _)| !beyond(&address.path))
        .map(|(_, weight)| weight.key.clone())
        .collect();
    if strict {
        keys.extend(weights.unexpected.iter().cloned());
    }
    if !keys.is_empty() {
        let path = weights.path.to_path_buf();
        return Err(Blip2Error::Unexpected { path, keys });
    }
    fill(module, part, weights, matrices, None, device)
}

fn block_index(path: &str) -> Option<usize> {
    path.strip_prefix("blocks.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn no_tower(path: &Path, what: &str) -> Blip2Error {
    Blip2Error::Format {
        path: path.to_path_buf(),
        reason: format!("holds no {what}"),
    }
}
