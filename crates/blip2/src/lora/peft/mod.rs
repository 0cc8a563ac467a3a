//! Adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

mod config;
mod patterns;
mod read;
mod write;

/// PEFT's name of the description.
const CONFIG: &str = "adapter_config.json";

/// PEFT's names of the tensors, in the order of preference.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// What stands before a module's name in the keys.
const PREFIX: &str = "base_model.model.";

/// What stands behind it.
const LORA_A: &str = ".lora_A.weight";
const LORA_B: &str = ".lora_B.weight";

/// The note in the tensors' file that tells the base from others; PEFT passes it over.
const FINGERPRINTS: &str = "blip2.base_fingerprints";
