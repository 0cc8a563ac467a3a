//! Hashes that prove that frozen weights stay what they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use blip2::{Blip2Caption, Tower};
use blip2_kernels::readable;
use blip2_vision::VisionTransformer;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use sha2::{Digest, Sha256};

use crate::RunError;

/// SHA-256 over the constant weights of each part that has some, in hex, by the part's name: frozen
/// parts, and adapted ones without their adapters.
pub fn tower_hashes(model: &Blip2Caption) -> BTreeMap<String, String> {
    let parts = [
        ("vision_backbone", constants_sha256(&model.vision_backbone)),
        ("ln_vision", constants_sha256(&model.ln_vision)),
        (
            "multimodal_backbone",
            constants_sha256(&model.multimodal_backbone),
        ),
        ("vision_neck", constants_sha256(&model.vision_neck)),
        ("text_backbone", constants_sha256(&model.text_backbone)),
    ];
    parts
        .into_iter()
        .filter_map(|(name, hash)| Some((name.to_string(), hash?)))
        .collect()
}

/// None of a part that is trained whole.
fn constants_sha256<M: Module>(tower: &Tower<M>) -> Option<String> {
    if let Tower::Trained(_) = tower {
        return None;
    }
    let mut visitor = Hasher(Sha256::new());
    tower.visit_constants(&mut visitor);
    Some(hex(&visitor.0.finalize()))
}

/// As [`tower_hashes`], of a model that has an image encoder alone.
pub fn vision_hash(vision: &Tower<VisionTransformer>) -> BTreeMap<String, String> {
    let mut hashes = BTreeMap::new();
    if let Tower::Frozen(tower) = vision {
        hashes.insert("vision_backbone".to_string(), weights_sha256(tower));
    }
    hashes
}

/// Fails if a frozen tower is not what it was `before`; says so on stderr if it is.
///
/// # Errors
///
/// Names the tower.
pub fn check_unchanged(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Result<(), RunError> {
    for (tower, hash) in before {
        if after.get(tower) != Some(hash) {
            return Err(RunError::Training(format!("the frozen {tower} changed")));
        }
        eprintln!("frozen {tower} is bit-identical before and after: sha256 {hash}");
    }
    Ok(())
}

/// SHA-256 over the bytes of every weight of `module`, in the module's order; in hex.
pub fn weights_sha256<M: Module>(module: &M) -> String {
    let mut visitor = Hasher(Sha256::new());
    module.visit(&mut visitor);
    hex(&visitor.0.finalize())
}

/// The SHA-256 of `bytes` in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a file in hex, read piece by piece.
///
/// # Errors
///
/// If it can't be read.
pub fn file_sha256(path: &Path) -> std::io::Result<String> {
    let mut digest = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut digest)?;
    Ok(hex(&digest.finalize()))
}

/// A digest in hex.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Hasher(Sha256);

impl ModuleVisitor for Hasher {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.update(readable(param.val()).into_data().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn one_changed_weight_changes_the_hash() {
        let linear = LinearConfig::new(3, 2).init(&Device::default());
        let before = weights_sha256(&linear);
        assert_eq!(before, weights_sha256(&linear.clone()));
        let mut changed = linear.clone();
        changed.weight = changed.weight.map(|weight| weight + 1e-6);
        assert_ne!(before, weights_sha256(&changed));
    }
}
