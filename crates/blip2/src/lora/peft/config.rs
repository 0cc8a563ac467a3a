//! `adapter_config.json`, read.

use std::path::Path;

use serde_json::{Map, Value};

use super::patterns::Patterns;
use crate::Blip2Error;
use crate::lora::config::Targets;

/// Fields that change nothing about what a finished adapter computes, and those that [`Config`] reads.
const KNOWN: [&str; 27] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
];

/// Initial values that leave the base as it is. Others (`pissa`, `olora`, …) take something from it.
const HARMLESS_INIT: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What an adapter's description says.
pub struct Config {
    /// The model that it was trained on.
    pub base: Option<String>,
    /// The layers that are adapted, where nothing else restricts them.
    pub targets: Option<Targets>,
    pub rslora: bool,
    rank: usize,
    alpha: f64,
    ranks: Patterns<usize>,
    alphas: Patterns<f64>,
}

impl Config {
    /// # Errors
    ///
    /// Names the field that is missing, wrong, or asks for what is not known here.
    pub fn read(path: &Path) -> Result<Self, Blip2Error> {
        let text = std::fs::read_to_string(path).map_err(Blip2Error::io(path))?;
        let format = |reason: String| Blip2Error::Format {
            path: path.to_path_buf(),
            reason,
        };
        let fields: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| format(format!("is no description of an adapter: {error}")))?;
        Self::of(&fields).map_err(|(field, reason)| format(format!("`{field}`: {reason}")))
    }

    fn of(fields: &Map<String, Value>) -> Result<Self, (String, String)> {
        let get = |name: &str| fields.get(name).filter(|value| is_set(value));
        let wrong = |name: &str, reason: &str| (name.to_string(), reason.to_string());
        match get("peft_type").and_then(Value::as_str) {
            Some("LORA") => {}
            other => {
                let found = other.unwrap_or("nothing");
                return Err(wrong(
                    "peft_type",
                    &format!("expected `LORA`, found {found}"),
                ));
            }
        }
        if get("bias").is_some_and(|bias| bias != "none") {
            let reason = "trained biases are not known here: only `none` is";
            return Err(wrong("bias", reason));
        }
        if get("fan_in_fan_out").is_some() {
            let reason = "BLIP-2's layers are not stored the other way round: must be false";
            return Err(wrong("fan_in_fan_out", reason));
        }
        if let Some(Value::String(kind)) = get("init_lora_weights")
            && !HARMLESS_INIT.contains(&kind.as_str())
        {
            let reason = format!(
                "`{kind}` changes the base as well, which such a folder does not hold: convert it to \
                 plain LoRA with PEFT first"
            );
            return Err(wrong("init_lora_weights", &reason));
        }
        let set = |(name, value): &(&String, &Value)| {
            !KNOWN.contains(&name.as_str()) && *name != "use_rslora" && is_set(value)
        };
        if let Some((name, _)) = fields.iter().find(set) {
            return Err(wrong(name, "is not known here; only plain LoRA is"));
        }
        let number = |name: &str| {
            get(name)
                .and_then(Value::as_f64)
                .filter(|number| number.is_finite())
                .ok_or_else(|| wrong(name, "a number is missing"))
        };
        let rank = rank(&Value::from(number("r")?)).map_err(|reason| wrong("r", &reason))?;
        let entries = |name: &str| match get(name) {
            Some(Value::Object(entries)) => entries.clone(),
            _ => Map::new(),
        };
        let ranks = entries("rank_pattern")
            .into_iter()
            .map(|(key, value)| Ok((key, self::rank(&value)?)))
            .collect::<Result<Vec<_>, String>>()
            .and_then(Patterns::new)
            .map_err(|reason| wrong("rank_pattern", &reason))?;
        let alphas = entries("alpha_pattern")
            .into_iter()
            .map(|(key, value)| {
                let alpha = value
                    .as_f64()
                    .ok_or_else(|| format!("{value} is no number"));
                Ok((key, alpha?))
            })
            .collect::<Result<Vec<_>, String>>()
            .and_then(Patterns::new)
            .map_err(|reason| wrong("alpha_pattern", &reason))?;
        let targets = get("target_modules")
            .map(|targets| {
                serde_json::from_value::<Targets>(targets.clone())
                    .map_err(|_| wrong("target_modules", "a list of names or a text is needed"))
            })
            .transpose()?;
        if let Some(targets) = &targets {
            let checked = targets.matcher().map(|_| ());
            checked.map_err(|reason| wrong("target_modules", &reason))?;
        }
        let restricted = ["exclude_modules", "layers_to_transform", "layers_pattern"];
        let restricted = restricted.iter().any(|name| get(name).is_some());
        let all_linear = targets == Some(Targets::Pattern("all-linear".into()));
        Ok(Self {
            base: get("base_model_name_or_path")
                .and_then(Value::as_str)
                .map(str::to_string),
            targets: targets.filter(|_| !restricted && !all_linear),
            rslora: get("use_rslora").is_some(),
            rank,
            alpha: number("lora_alpha")?,
            ranks,
            alphas,
        })
    }

    /// The rank of a layer.
    pub fn rank(&self, layer: &str) -> usize {
        self.ranks.get(layer).unwrap_or(self.rank)
    }

    /// The alpha of a layer.
    pub fn alpha(&self, layer: &str) -> f64 {
        self.alphas.get(layer).unwrap_or(self.alpha)
    }
}

/// PEFT writes every field; those that are not used are null, false or empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

fn rank(value: &Value) -> Result<usize, String> {
    match value.as_f64() {
        Some(rank) if rank >= 1.0 && rank.fract() == 0.0 => Ok(rank as usize),
        _ => Err(format!("{value} is no rank")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain() -> Map<String, Value> {
        let value = json!({
            "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"],
            "bias": "none", "modules_to_save": null, "use_dora": false, "loftq_config": {},
            "rank_pattern": {}, "lora_dropout": 0.1, "init_lora_weights": true,
            "megatron_core": "megatron.core", "qalora_group_size": 16,
        });
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn patterns_are_those_of_peft() {
        let mut fields = plain();
        fields.insert(
            "rank_pattern".into(),
            json!({r"layers\.1\..*": 2, "q_proj": 4}),
        );
        fields.insert("alpha_pattern".into(), json!({"layers.0.q_proj": 3.5}));
        let config = Config::of(&fields).unwrap();
        // serde_json keeps keys in the order of the alphabet, Python in that of the file: layers match
        // one of these patterns each.
        assert_eq!(config.rank("x.layers.1.k_proj"), 2);
        assert_eq!(config.rank("x.layers.0.q_proj"), 4);
        assert_eq!(config.rank("x.layers.0.k_proj"), 8);
        assert_eq!(config.alpha("x.layers.0.q_proj"), 3.5);
        assert_eq!(config.alpha("x.layers.10.q_proj"), 16.0);
    }

    #[test]
    fn what_is_not_plain_lora_is_refused_by_the_name_of_its_field() {
        assert!(Config::of(&plain()).is_ok());
        for (field, value) in [
            ("peft_type", json!("IA3")),
            ("bias", json!("lora_only")),
            ("use_dora", json!(true)),
            ("modules_to_save", json!(["lm_head"])),
            ("fan_in_fan_out", json!(true)),
            ("lora_bias", json!(true)),
            ("init_lora_weights", json!("pissa")),
            ("trainable_token_indices", json!([1])),
            ("r", json!(0)),
            ("r", json!("8")),
            ("lora_alpha", Value::Null),
            ("target_modules", json!("(")),
            ("target_modules", json!(7)),
            ("rank_pattern", json!({"x": 0.5})),
            ("something_of_next_year", json!(1)),
        ] {
            let mut fields = plain();
            fields.insert(field.into(), value.clone());
            match Config::of(&fields) {
                Err((name, _)) => assert_eq!(name, field),
                Ok(_) => panic!("{field} = {value} was accepted"),
            }
        }
    }
}
