//! What a recipe says about adapters, in PEFT's words.

use std::path::PathBuf;

use blip2_kernels::Bits;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::Blip2Error;
use crate::checkpoint::names::Part;

/// The adapters of a captioner: the table `[model.lora]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraParts {
    /// Keeps LayerNorm, Q-Former and neck constant as well, so that adapters alone learn and a folder
    /// of them is all that a run made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adapters_only: bool,
    /// On the image encoder, which must be frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision_backbone: Option<LoraConfig>,
    /// On the Q-Former, whose own weights and queries are then constants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multimodal_backbone: Option<LoraConfig>,
    /// On the language model, which must be frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_backbone: Option<LoraConfig>,
}

/// The adapters of one part, in the words of PEFT's `LoraConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// The linear layers that get one, by transformers' names.
    pub target_modules: Targets,
    /// The rank.
    pub r: usize,
    /// `a · b` counts `lora_alpha / r` times.
    pub lora_alpha: f64,
    /// Dropout before `a`; only 0 is possible.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lora_dropout: f64,
    /// Scales with `lora_alpha / √r` (rsLoRA, arXiv 2312.03732).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_rslora: bool,
    /// Keeps the part's linear layers in fewer bits (QLoRA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantize: Option<Quantization>,
    /// A folder in PEFT's layout whose adapters this part starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
}

/// Which linear layers get an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// Names, whole or from some full stop on: `q_proj`, `layers.0.fc1`.
    Names(Vec<String>),
    /// A regular expression for the whole name.
    Pattern(String),
}

/// How the weights of a part's linear layers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// Eight bits, and a scale for every few dozen numbers of a row.
    Int8,
    /// Four bits, and a scale for at most 32 numbers of a row; not on devices of servers.
    Int4,
}

impl Quantization {
    pub(super) fn bits(self) -> Bits {
        match self {
            Self::Int8 => Bits::Eight,
            Self::Int4 => Bits::Four,
        }
    }
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl LoraParts {
    /// Whether nothing is adapted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The adapted parts in the order of the data.
    pub fn iter(&self) -> impl Iterator<Item = (Part, &LoraConfig)> {
        [
            (Part::VisionBackbone, &self.vision_backbone),
            (Part::MultimodalBackbone, &self.multimodal_backbone),
            (Part::TextBackbone, &self.text_backbone),
        ]
        .into_iter()
        .filter_map(|(part, config)| Some((part, config.as_ref()?)))
    }

    /// Checks what can be checked without a model.
    ///
    /// # Errors
    ///
    /// Names the field.
    pub fn validate(&self) -> Result<(), Blip2Error> {
        if self.adapters_only && self.iter().next().is_none() {
            return Err(Blip2Error::Config {
                field: "model.lora.adapters_only".into(),
                reason: "without adapters nothing would learn: add `[model.lora.text_backbone]`"
                    .into(),
            });
        }
        self.iter()
            .try_for_each(|(part, config)| config.validate(part))
    }
}

impl LoraConfig {
    /// What `a · b` is multiplied by.
    pub fn scale(&self) -> f64 {
        scale(self.lora_alpha, self.r, self.use_rslora)
    }

    fn validate(&self, part: Part) -> Result<(), Blip2Error> {
        let invalid = |name: &str, reason: String| {
            Err(Blip2Error::Config {
                field: field(part, name),
                reason,
            })
        };
        if self.r == 0 {
            return invalid("r", "must be at least 1".into());
        }
        if !(self.lora_alpha > 0.0 && self.lora_alpha.is_finite()) {
            return invalid("lora_alpha", "must be a positive number".into());
        }
        if self.lora_dropout != 0.0 {
            let reason = "adapters have no dropout here: leave it out or set 0.0";
            return invalid("lora_dropout", reason.into());
        }
        match &self.target_modules {
            Targets::Names(names) if names.is_empty() => {
                invalid("target_modules", "names no layer".into())
            }
            targets => match targets.matcher() {
                Ok(_) => Ok(()),
                Err(reason) => invalid("target_modules", reason),
            },
        }
    }
}

/// What `a · b` is multiplied by.
pub(super) fn scale(alpha: f64, rank: usize, rslora: bool) -> f64 {
    match rslora {
        true => alpha / (rank as f64).sqrt(),
        false => alpha / rank as f64,
    }
}

/// A field of the part's table.
pub(super) fn field(part: Part, name: &str) -> String {
    format!("model.lora.{}.{name}", part.name())
}

impl Targets {
    /// Says of a layer's name whether it is meant, by PEFT's rules (`check_target_module_exists`).
    ///
    /// # Errors
    ///
    /// If the regular expression is none.
    pub fn matcher(&self) -> Result<impl Fn(&str) -> bool, String> {
        enum Matcher<'a> {
            Names(&'a [String]),
            Pattern(Regex),
        }
        let matcher = match self {
            Self::Names(names) => Matcher::Names(names),
            Self::Pattern(pattern) => Matcher::Pattern(whole(pattern)?),
        };
        Ok(move |layer: &str| match &matcher {
            Matcher::Names(names) => names.iter().any(|name| {
                let before = layer.strip_suffix(name.as_str());
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }),
            Matcher::Pattern(pattern) => pattern.is_match(layer),
        })
    }
}

/// `pattern` for the whole of a text, as Python's `re.fullmatch` has it.
pub(super) fn whole(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
        format!("`{pattern}` is no regular expression that is known here: {error}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What PEFT 0.21's `check_target_module_exists` says of the same.
    #[test]
    fn targets_match_as_in_peft() {
        let layer = "language_model.model.decoder.layers.1.self_attn.q_proj";
        let names = |names: &[&str]| Targets::Names(names.iter().map(|n| n.to_string()).collect());
        let pattern = |pattern: &str| Targets::Pattern(pattern.to_string());
        for (targets, expected) in [
            (names(&["q_proj"]), true),
            (names(&["k_proj", "self_attn.q_proj"]), true),
            (names(&[layer]), true),
            (names(&["proj"]), false),
            (names(&["self_attn"]), false),
            (pattern(r".*\.(q|v)_proj"), true),
            (pattern("q_proj"), false),
            (pattern(r"language_model.*layers\.[01]\..*"), true),
        ] {
            let matches = targets.matcher().unwrap();
            assert_eq!(matches(layer), expected, "{targets:?}");
        }
        assert!(pattern("(").matcher().is_err());
    }

    #[test]
    fn scales_are_those_of_lora_and_rslora() {
        assert_eq!(scale(16.0, 4, false), 4.0);
        assert_eq!(scale(16.0, 4, true), 8.0);
    }
}
