//! What a checkpoint belongs to: a recipe, data and frozen towers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::recipe::Recipe;
use crate::recipe_file::PATH_KEYS;

/// Fields that change no weight: how fast, how often, what is kept and what is looked at.
const FREE: [&str; 9] = [
    "data.num_workers",
    "data.test",
    "evaluation",
    "train.checkpoint_every",
    "train.devices",
    "train.keep_best",
    "train.keep_last",
    "train.max_non_finite",
    "train.tensorboard",
];

/// Everything that must be the same for a run to go on as if it had not stopped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The recipe without paths and without what changes no weight.
    pub recipe: Value,
    /// SHA-256 of what the paths lead to, by name: `train images`, `vision_backbone`, …
    pub sha256: BTreeMap<String, String>,
}

impl Identity {
    /// Of a run of `recipe` on what has the hashes `sha256`.
    pub fn new(recipe: &Recipe, sha256: BTreeMap<String, String>) -> Self {
        let mut value = serde_json::to_value(recipe).unwrap_or_default();
        strip(&mut value, "");
        if let Some(features) = value.get_mut("features").and_then(Value::as_object_mut)
            && features.get("dtype").is_some_and(|dtype| dtype == "f32")
        {
            // Exact wherever they are kept.
            features.remove("cache");
        }
        Self {
            recipe: value,
            sha256,
        }
    }

    /// What is different in `run`, in words; none if nothing is.
    pub fn difference(&self, run: &Self) -> Option<String> {
        if let Some(difference) = compare(&self.recipe, &run.recipe, "") {
            return Some(format!("the config is another one: {difference}"));
        }
        let names = self.sha256.keys().chain(run.sha256.keys());
        let changed = names
            .into_iter()
            .find(|name| self.sha256.get(*name) != run.sha256.get(*name))?;
        Some(format!("the {changed} are not those that it was made with"))
    }
}

/// Removes paths and what is free.
fn strip(value: &mut Value, at: &str) {
    if let Value::Array(items) = value {
        for item in items {
            strip(item, at);
        }
        return;
    }
    let Value::Object(fields) = value else {
        return;
    };
    fields.retain(|key, _| {
        let path = join(at, key);
        !PATH_KEYS.contains(&key.as_str()) && !FREE.contains(&path.as_str())
    });
    for (key, value) in fields {
        strip(value, &join(at, key));
    }
}

/// The first difference of two recipes.
fn compare(checkpoint: &Value, run: &Value, at: &str) -> Option<String> {
    if let (Value::Object(old), Value::Object(new)) = (checkpoint, run) {
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        return keys.into_iter().find_map(|key| {
            let side = |fields: &serde_json::Map<String, Value>| {
                fields.get(key).cloned().unwrap_or(Value::Null)
            };
            compare(&side(old), &side(new), &join(at, key))
        });
    }
    (!equal(checkpoint, run)).then(|| {
        let word = |value: &Value| match value {
            Value::Null => "not set".to_string(),
            value => value.to_string(),
        };
        format!("`{at}` was {}, now it is {}", word(checkpoint), word(run))
    })
}

/// Numbers may lose their last digit on the way through JSON.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
            _ => a == b,
        },
        _ => a == b,
    }
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() {
        key.to_string()
    } else {
        format!("{at}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(mut recipe: Value, sha256: &[(&str, &str)]) -> Identity {
        strip(&mut recipe, "");
        let sha256 = sha256
            .iter()
            .map(|(name, hash)| (name.to_string(), hash.to_string()))
            .collect();
        Identity { recipe, sha256 }
    }

    #[test]
    fn the_first_difference_is_named_and_what_changes_no_weight_is_not() {
        let old =
            json!({"seed": 1, "train": {"keep_last": 1, "epochs": 4}, "m": [{"weights": "a"}]});
        let moved =
            json!({"seed": 1, "train": {"keep_last": 9, "epochs": 4}, "m": [{"weights": "b"}]});
        let longer = json!({"seed": 1, "train": {"epochs": 5, "ema_decay": 0.9}, "m": [{}]});
        let old = identity(old, &[("train images", "1"), ("text_backbone", "2")]);
        let same = identity(
            moved.clone(),
            &[("train images", "1"), ("text_backbone", "2")],
        );
        assert_eq!(old.difference(&same), None);
        let longer = identity(longer, &[]);
        let difference = old.difference(&longer).unwrap();
        assert!(
            difference.contains("`train.ema_decay` was not set"),
            "{difference}"
        );
        let other = identity(moved, &[("train images", "3"), ("text_backbone", "2")]);
        let difference = old.difference(&other).unwrap();
        assert!(difference.contains("train images"), "{difference}");
    }
}
