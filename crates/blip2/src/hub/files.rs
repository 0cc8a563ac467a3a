//! Which files of a repository are needed.

use std::collections::BTreeSet;

use super::Wanted;

/// What describes a model beside its weights; a repository has some of them.
const DESCRIPTIONS: [&str; 4] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
];
/// What makes up a tokenizer; a repository has some of them.
const TOKENIZER: [&str; 6] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
];
/// Weights in one file or shards, the first that is there.
const WEIGHTS: [&str; 4] = [
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
];

/// The files to fetch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub files: Vec<String>,
    /// That of them which names further ones.
    pub index: Option<String>,
}

impl Plan {
    /// What is wanted of the files that are there, or what lacks.
    pub fn new(available: &BTreeSet<String>, wanted: Wanted) -> Result<Self, &'static str> {
        let there = |name: &str| available.contains(name);
        let mut files: Vec<&str> = TOKENIZER
            .iter()
            .copied()
            .filter(|name| there(name))
            .collect();
        let mut index = None;
        match wanted {
            Wanted::Tokenizer => {
                let whole = there("tokenizer.json") || (there("vocab.json") && there("merges.txt"));
                if !whole {
                    return Err("tokenizer (tokenizer.json, or vocab.json and merges.txt)");
                }
            }
            Wanted::Checkpoint => {
                let weights = WEIGHTS.iter().copied().find(|name| there(name)).ok_or(
                    "weights (model.safetensors, pytorch_model.bin, or the index of their shards)",
                )?;
                if !there("config.json") {
                    return Err("config.json");
                }
                files.extend(DESCRIPTIONS.iter().copied().filter(|name| there(name)));
                files.push(weights);
                index = weights.ends_with(".json").then(|| weights.to_string());
            }
        }
        Ok(Self {
            files: files.into_iter().map(str::to_string).collect(),
            index,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(available: &[&str], wanted: Wanted) -> Result<Plan, &'static str> {
        let available = available.iter().map(|name| (*name).to_string()).collect();
        Plan::new(&available, wanted)
    }

    #[test]
    fn nothing_is_fetched_twice_in_two_formats() {
        let both = plan(
            &[
                "README.md",
                "config.json",
                "model.safetensors",
                "pytorch_model.bin",
                "flax_model.msgpack",
            ],
            Wanted::Checkpoint,
        );
        assert_eq!(both.unwrap().files, ["config.json", "model.safetensors"]);
        let shards = plan(
            &[
                "config.json",
                "model-1.safetensors",
                "model.safetensors.index.json",
                "pytorch_model.bin",
            ],
            Wanted::Checkpoint,
        )
        .unwrap();
        assert_eq!(
            shards.index.as_deref(),
            Some("model.safetensors.index.json")
        );
        let tokenizer = plan(
            &[
                "config.json",
                "vocab.json",
                "merges.txt",
                "pytorch_model.bin",
            ],
            Wanted::Tokenizer,
        );
        assert_eq!(tokenizer.unwrap().files, ["vocab.json", "merges.txt"]);
    }

    #[test]
    fn what_lacks_is_named() {
        assert!(
            plan(&["config.json"], Wanted::Checkpoint)
                .unwrap_err()
                .contains("weights")
        );
        assert!(
            plan(&["model.safetensors"], Wanted::Checkpoint)
                .unwrap_err()
                .contains("config.json")
        );
        assert!(
            plan(&["vocab.json"], Wanted::Tokenizer)
                .unwrap_err()
                .contains("merges.txt")
        );
    }
}
