//! From adapters to a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::patterns::split;
use super::{CONFIG, FINGERPRINTS, LORA_A, LORA_B, PREFIX, WEIGHTS};
use crate::Blip2Error;
use crate::checkpoint::export::write_tensors;
use crate::lora::adapter::{Adapter, LowRank};
use crate::lora::layers::LinearLayer;

/// Linear layers of transformers' model that are none of a part's.
const BEYOND: [&str; 2] = ["language_projection", "language_model.lm_head"];

impl Adapter {
    /// Writes the adapters into `folder` as PEFT's `save_pretrained` would, and reads them back. `base`
    /// is the model that they were trained on, as `from_pretrained` takes it; `layers` are all the
    /// linear layers of it.
    ///
    /// # Errors
    ///
    /// A folder that is not empty, a full disk, or adapters that came back different.
    pub fn write(
        &self,
        folder: &Path,
        base: &str,
        layers: &[LinearLayer],
    ) -> Result<Vec<PathBuf>, Blip2Error> {
        std::fs::create_dir_all(folder).map_err(Blip2Error::io(folder))?;
        let mut contents = std::fs::read_dir(folder).map_err(Blip2Error::io(folder))?;
        let format = |reason: &str| Blip2Error::Format {
            path: folder.to_path_buf(),
            reason: reason.into(),
        };
        if contents.next().is_some() {
            return Err(format("is not empty: name a new folder"));
        }
        let mut tensors = Vec::new();
        for layer in &self.layers {
            let key = |half: &str| format!("{PREFIX}{}{half}", layer.name);
            let (rank, inputs, outputs) = (layer.rank, layer.inputs, layer.outputs);
            tensors.push((key(LORA_A), vec![rank, inputs], layer.a.clone()));
            tensors.push((key(LORA_B), vec![outputs, rank], layer.b.clone()));
        }
        let weights = folder.join(WEIGHTS[0]);
        let fingerprints = json!(self.fingerprints).to_string();
        write_tensors(tensors, &[(FINGERPRINTS, fingerprints)], &weights)?;
        let config = folder.join(CONFIG);
        let text = format!("{:#}\n", self.config(base, layers));
        std::fs::write(&config, text).map_err(Blip2Error::io(&config))?;

        let read = Self::read(folder)?;
        let same = |one: &LowRank, other: &LowRank| {
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            one.weight == other.weight
                && one.rank == other.rank
                && (one.scale() / other.scale() - 1.0).abs() < 1e-9
                && bits(&one.a) == bits(&other.a)
                && bits(&one.b) == bits(&other.b)
        };
        let mut written: Vec<&LowRank> = self.layers.iter().collect();
        written.sort_by(|one, other| one.weight.cmp(&other.weight));
        let all = written.len() == read.layers.len();
        if !all || !written.iter().zip(&read.layers).all(|(a, b)| same(a, b)) {
            let reason = "came back different: the disk or its connection may be faulty";
            return Err(format(reason));
        }
        Ok(vec![config, weights])
    }

    /// What PEFT needs to know; it fills the rest with its defaults, which are these adapters'.
    fn config(&self, base: &str, layers: &[LinearLayer]) -> Value {
        let rslora = self.layers.iter().all(|layer| layer.rslora);
        // One description has one kind of scale.
        let alpha = |layer: &LowRank| match layer.rslora == rslora {
            true => layer.alpha,
            false => layer.scale() * layer.rank as f64,
        };
        let (r, ranks) = split(&self.layers, |layer| layer.rank).unwrap_or_default();
        let (lora_alpha, alphas) = split(&self.layers, alpha).unwrap_or_default();
        let alphas: BTreeMap<String, Value> = alphas
            .into_iter()
            .map(|(pattern, alpha)| (pattern, number(alpha)))
            .collect();
        json!({
            "peft_type": "LORA",
            "auto_mapping": {
                "base_model_class": "Blip2ForConditionalGeneration",
                "parent_library": "transformers.models.blip_2.modeling_blip_2",
            },
            "base_model_name_or_path": base,
            "revision": null,
            "task_type": null,
            "inference_mode": true,
            "r": r,
            "lora_alpha": number(lora_alpha),
            "rank_pattern": ranks,
            "alpha_pattern": alphas,
            "target_modules": self.target_modules(layers),
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "modules_to_save": null,
            "use_dora": false,
            "use_rslora": rslora,
        })
    }

    /// The last words of the layers' names if they mean these layers and no others, else whole names.
    fn target_modules(&self, layers: &[LinearLayer]) -> Vec<String> {
        let adapted: BTreeSet<&str> = self
            .layers
            .iter()
            .map(|layer| layer.name.as_str())
            .collect();
        let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_string();
        let words: BTreeSet<String> = adapted.iter().map(|name| last(name)).collect();
        let all = layers.iter().map(|layer| layer.name.as_str()).chain(BEYOND);
        let meant: BTreeSet<&str> = all.filter(|name| words.contains(&last(name))).collect();
        match meant == adapted {
            true => words.into_iter().collect(),
            false => adapted.into_iter().map(str::to_string).collect(),
        }
    }
}

/// Whole numbers as PEFT's own files have them.
fn number(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 1e9 {
        true => json!(value as i64),
        false => json!(value),
    }
}
