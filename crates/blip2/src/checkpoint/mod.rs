//! Towers as folders in the Hugging Face layout: `config.json` and `model.safetensors`.

mod safetensors;

use std::path::Path;

use blip2_lm::{Opt, OptConfig};
use blip2_vision::{VisionConfig, VisionTransformer};
use burn::module::Module;
use burn::tensor::Device;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use self::safetensors::{WeightsDType, read_weights, write_weights};
use crate::Blip2Error;

/// Keys of a Hugging Face `config.json` that say nothing about the architecture.
const META_KEYS: [&str; 5] = [
    "model_type",
    "architectures",
    "torch_dtype",
    "dtype",
    "transformers_version",
];

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";

/// Reads an image encoder from its folder; weights become f32 on `device`.
///
/// # Errors
///
/// A missing or broken file, an unknown or impossible field, a missing, unexpected or misshapen
/// weight: the error names file and key.
pub fn load_vision(
    folder: &Path,
    device: &Device,
) -> Result<(VisionConfig, VisionTransformer), Blip2Error> {
    let config: VisionConfig = read_config(folder)?;
    let module = config.init(device)?;
    let module = read_weights(
        module,
        &folder.join(WEIGHTS_FILE),
        blip2_vision::keymap::from_hugging_face,
    )?;
    Ok((config, module))
}

/// Writes an image encoder with its Hugging Face names (`vision_model.*`).
///
/// # Errors
///
/// If a file can't be written.
pub fn save_vision(
    config: &VisionConfig,
    module: &VisionTransformer,
    folder: &Path,
    dtype: WeightsDType,
) -> Result<(), Blip2Error> {
    write_config(config, "blip_2_vision_model", folder)?;
    write_weights(
        &module.valid(),
        &folder.join(WEIGHTS_FILE),
        blip2_vision::keymap::to_hugging_face,
        dtype,
    )
}

/// Reads an OPT language model from its folder; weights become f32 on `device`.
///
/// # Errors
///
/// As [`load_vision`].
pub fn load_opt(folder: &Path, device: &Device) -> Result<(OptConfig, Opt), Blip2Error> {
    let config: OptConfig = read_config(folder)?;
    let module = config.init(device)?;
    let module = read_weights(
        module,
        &folder.join(WEIGHTS_FILE),
        blip2_lm::opt::keymap::from_hugging_face,
    )?;
    Ok((config, module))
}

/// Writes an OPT language model with its Hugging Face names (`model.decoder.*`).
///
/// # Errors
///
/// If a file can't be written.
pub fn save_opt(
    config: &OptConfig,
    module: &Opt,
    folder: &Path,
    dtype: WeightsDType,
) -> Result<(), Blip2Error> {
    write_config(config, "opt", folder)?;
    write_weights(
        &module.valid(),
        &folder.join(WEIGHTS_FILE),
        blip2_lm::opt::keymap::to_hugging_face,
        dtype,
    )
}

/// Reads a tower's architecture from `folder/config.json`.
///
/// # Errors
///
/// A missing file, broken JSON, or a field that the architecture does not have.
pub fn read_config<C: DeserializeOwned>(folder: &Path) -> Result<C, Blip2Error> {
    let path = folder.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).map_err(Blip2Error::io(&path))?;
    let invalid = |error: serde_json::Error| Blip2Error::Format {
        path: path.clone(),
        reason: error.to_string(),
    };
    let mut fields: Map<String, Value> = serde_json::from_str(&text).map_err(invalid)?;
    for key in META_KEYS {
        fields.remove(key);
    }
    serde_json::from_value(Value::Object(fields)).map_err(invalid)
}

fn write_config<C: Serialize>(
    config: &C,
    model_type: &str,
    folder: &Path,
) -> Result<(), Blip2Error> {
    std::fs::create_dir_all(folder).map_err(Blip2Error::io(folder))?;
    let path = folder.join(CONFIG_FILE);
    let invalid = |error: serde_json::Error| Blip2Error::Format {
        path: path.clone(),
        reason: error.to_string(),
    };
    let mut fields = serde_json::to_value(config).map_err(invalid)?;
    fields["model_type"] = model_type.into();
    let text = serde_json::to_string_pretty(&fields).map_err(invalid)? + "\n";
    std::fs::write(&path, text).map_err(Blip2Error::io(&path))
}
