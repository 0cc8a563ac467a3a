//! From a folder to adapters.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::DType;

use super::config::Config;
use super::{CONFIG, FINGERPRINTS, LORA_A, LORA_B, PREFIX, WEIGHTS};
use crate::Blip2Error;
use crate::checkpoint::names::{Layout, Meaning, Part};
use crate::checkpoint::{Source, StoredTensor, Weight, note};
use crate::lora::adapter::{Adapter, LowRank};

impl Adapter {
    /// Reads a folder that PEFT's `save_pretrained` or [`write`](Self::write) made, of adapters on
    /// transformers' `Blip2ForConditionalGeneration`.
    ///
    /// # Errors
    ///
    /// Missing or broken files, adapters of another kind than plain LoRA or rsLoRA (the message names
    /// the field), of modules that are no linear layers of image encoder, Q-Former or OPT, halves
    /// without their other half, other ranks than the description says.
    pub fn read(folder: &Path) -> Result<Self, Blip2Error> {
        let config = Config::read(&folder.join(CONFIG))?;
        let file = WEIGHTS
            .iter()
            .map(|name| folder.join(name))
            .find(|path| path.is_file());
        let file = file.ok_or_else(|| Blip2Error::Format {
            path: folder.to_path_buf(),
            reason: format!("holds no adapter: none of {}", WEIGHTS.join(", ")),
        })?;
        let source = Source::open(&file)?;
        let mut halves: BTreeMap<&str, [Option<&StoredTensor>; 2]> = BTreeMap::new();
        for (key, stored) in source.tensors() {
            let module = key.strip_prefix(PREFIX).and_then(|name| {
                let a = name.strip_suffix(LORA_A).map(|module| (module, 0));
                a.or_else(|| name.strip_suffix(LORA_B).map(|module| (module, 1)))
            });
            let Some((module, half)) = module else {
                return Err(Blip2Error::Unexpected {
                    path: file.clone(),
                    keys: vec![key.clone()],
                });
            };
            halves.entry(module).or_default()[half] = Some(stored);
        }
        let mut layers = halves
            .into_iter()
            .map(|(name, halves)| low_rank(name, halves, &config, &file))
            .collect::<Result<Vec<_>, _>>()?;
        layers.sort_by(|one, other| one.weight.cmp(&other.weight));
        Ok(Self {
            path: folder.to_path_buf(),
            base: config.base,
            targets: config.targets,
            fingerprints: fingerprints(&file)?,
            layers,
        })
    }
}

/// What the file says of the base; nothing if another program wrote it.
fn fingerprints(file: &Path) -> Result<BTreeMap<String, Vec<f32>>, Blip2Error> {
    let Some(text) = note(file, FINGERPRINTS)? else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_str(&text).map_err(|error| Blip2Error::Format {
        path: file.to_path_buf(),
        reason: format!("has a corrupt header: `{FINGERPRINTS}`: {error}"),
    })
}

fn low_rank(
    name: &str,
    halves: [Option<&StoredTensor>; 2],
    config: &Config,
    file: &Path,
) -> Result<LowRank, Blip2Error> {
    let format = |reason: String| Blip2Error::Format {
        path: file.to_path_buf(),
        reason,
    };
    let weight = match Layout::HuggingFace.meaning(&format!("{name}.weight")) {
        Meaning::Weight(weight, None)
            if !matches!(weight.part, Part::LnVision | Part::VisionNeck) =>
        {
            weight
        }
        _ => {
            return Err(format(format!(
                "`{name}` is no linear layer of image encoder, Q-Former or OPT"
            )));
        }
    };
    let [Some(a), Some(b)] = halves else {
        let (there, missing) = match halves {
            [Some(_), None] => (LORA_A, LORA_B),
            _ => (LORA_B, LORA_A),
        };
        return Err(format(format!(
            "`{name}` has `{there}` but no `{missing}`: the file is damaged"
        )));
    };
    let rank = config.rank(name);
    let shape = |stored: &StoredTensor, expected: &dyn Fn(&[usize]) -> Option<[usize; 2]>| {
        let wanted = expected(&stored.shape);
        match wanted {
            Some(wanted) if stored.shape == wanted => Ok(wanted),
            wanted => Err(Blip2Error::Shape {
                path: file.to_path_buf(),
                key: stored.key.clone(),
                expected: wanted.unwrap_or([rank, 1]).to_vec(),
                found: stored.shape.clone(),
            }),
        }
    };
    let [_, inputs] = shape(a, &|shape| Some([rank, *shape.get(1)?]))?;
    let [outputs, _] = shape(b, &|shape| Some([*shape.first()?, rank]))?;
    Ok(LowRank {
        weight,
        name: name.to_string(),
        rank,
        alpha: config.alpha(name),
        rslora: config.rslora,
        inputs,
        outputs,
        a: values(a)?,
        b: values(b)?,
    })
}

/// The numbers of a tensor in f32.
fn values(stored: &StoredTensor) -> Result<Vec<f32>, Blip2Error> {
    if !stored.dtype.is_float() {
        return Err(Blip2Error::DType {
            path: stored.file.to_path_buf(),
            key: stored.key.clone(),
            found: format!("{:?}", stored.dtype),
        });
    }
    let bytes = Weight::whole(stored).read(DType::F32)?;
    let (numbers, _) = bytes.as_chunks::<4>();
    Ok(numbers
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect())
}
