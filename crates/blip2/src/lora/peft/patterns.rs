//! PEFT's `rank_pattern` and `alpha_pattern`: other values for layers whose names match.

use std::collections::BTreeMap;

use regex::Regex;

use super::super::adapter::LowRank;
use crate::checkpoint::names::Part;

/// Regular expressions for the end of a name, from some full stop on, and their values.
pub struct Patterns<V>(Vec<(Regex, V)>);

impl<V: Copy> Patterns<V> {
    /// # Errors
    ///
    /// If a key is no regular expression.
    pub fn new(entries: impl IntoIterator<Item = (String, V)>) -> Result<Self, String> {
        let compiled = entries.into_iter().map(|(key, value)| {
            let pattern = Regex::new(&format!(r"^(.*\.)?({key})$")).map_err(|error| {
                format!("`{key}` is no regular expression that is known here: {error}")
            })?;
            Ok((pattern, value))
        });
        Ok(Self(compiled.collect::<Result<_, String>>()?))
    }

    /// The value of the first pattern that matches (PEFT's `get_pattern_key`).
    pub fn get(&self, name: &str) -> Option<V> {
        let found = self.0.iter().find(|(pattern, _)| pattern.is_match(name));
        found.map(|(_, value)| *value)
    }
}

/// The value that most layers have, and patterns for the others: one for a whole part where its layers
/// agree.
pub fn split<V: Copy + PartialEq>(
    layers: &[LowRank],
    value: impl Fn(&LowRank) -> V,
) -> Option<(V, BTreeMap<String, V>)> {
    let count = |wanted: V| layers.iter().filter(|layer| value(layer) == wanted).count();
    let most = layers
        .iter()
        .map(&value)
        .max_by_key(|&value| count(value))?;
    let mut patterns = BTreeMap::new();
    for part in Part::ALL {
        let of_part: Vec<&LowRank> = layers
            .iter()
            .filter(|layer| layer.weight.part == part)
            .collect();
        let Some(first) = of_part.first().map(|layer| value(layer)) else {
            continue;
        };
        if of_part.iter().all(|layer| value(layer) == first) {
            if first != most {
                patterns.insert(format!(r"{}\..*", prefix(part)), first);
            }
            continue;
        }
        for layer in of_part {
            if value(layer) != most {
                patterns.insert(layer.name.replace('.', r"\."), value(layer));
            }
        }
    }
    Some((most, patterns))
}

/// What names of the part's layers begin with in transformers.
fn prefix(part: Part) -> &'static str {
    match part {
        Part::VisionBackbone | Part::LnVision => "vision_model",
        Part::MultimodalBackbone => "qformer",
        Part::VisionNeck => "language_projection",
        Part::TextBackbone => "language_model",
        Part::Heads => "itm_head",
    }
}
