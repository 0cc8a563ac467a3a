//! A BERT checkpoint as the start of a Q-Former.

use std::path::Path;
use std::sync::Arc;

use blip2_qformer::QFormerConfig;
use blip2_qformer::keymap::Names;
use burn::module::Module;
use burn::tensor::{DType, Device, Distribution, Tensor};

use crate::Blip2Error;
use crate::checkpoint::architecture::list;
use crate::checkpoint::fill::{Precision, fill_known};
use crate::checkpoint::names::{Address, Layout, Part};
use crate::checkpoint::report::shortened;
use crate::checkpoint::source::{Source, StoredTensor};
use crate::checkpoint::stage1::names::head_key;
use crate::checkpoint::weights::{Weight, Weights};
use crate::stage1::{Stage1Architecture, Stage1Bridge};

/// What transformers puts before the names of `BertForPreTraining`, and `BertModel` does not.
const PREFIX: &str = "bert.";
/// What LAVIS puts before them.
const LAVIS_PREFIX: &str = "Qformer.";
/// Names of a norm's parameters in the oldest files.
const OLD_NORM: [(&str, &str); 2] = [
    ("LayerNorm.weight", "LayerNorm.gamma"),
    ("LayerNorm.bias", "LayerNorm.beta"),
];

/// Gives a new Q-Former and its language head the weights of the BERT at `path`. Queries and
/// cross-attention stay as they are; the queries' feed-forward starts as the text's. Words that the
/// file lacks, such as `[DEC]`, are drawn.
///
/// # Errors
///
/// A file without a BERT, or one of other dimensions: the key is named.
///
/// Reference: LAVIS `Blip2Base.init_Qformer`, `Blip2Qformer.__init__`.
pub(crate) fn load_bert(
    bridge: Stage1Bridge,
    architecture: &Stage1Architecture,
    path: &Path,
    device: &Device,
) -> Result<Stage1Bridge, Blip2Error> {
    let bert = Bert {
        source: Source::open(path)?,
        qformer: &architecture.qformer,
        device,
    };
    let qformer = bert.fill(bridge.qformer, Part::MultimodalBackbone)?;
    let heads = bert.fill(bridge.heads, Part::Heads)?;
    Ok(Stage1Bridge {
        qformer,
        heads,
        ..bridge
    })
}

struct Bert<'a> {
    source: Source,
    qformer: &'a QFormerConfig,
    device: &'a Device,
}

impl Bert<'_> {
    fn fill<M: Module>(&self, module: M, part: Part) -> Result<M, Blip2Error> {
        let mut weights = Weights {
            layout: Layout::Native,
            path: self.source.path().into(),
            tensors: std::collections::BTreeMap::new(),
            dropped: Vec::new(),
            unexpected: Vec::new(),
        };
        let mut missing = Vec::new();
        for (address, expected) in list(part, &module) {
            let Some(key) = key_of(&address) else {
                continue;
            };
            let Some(stored) = self.find(&key) else {
                missing.push(key);
                continue;
            };
            let mut weight = Weight::whole(stored);
            if is_by_word(&address.path) {
                weight = self.more_words(weight, &expected.shape)?;
            }
            weights.tensors.insert(address, weight);
        }
        // `BertModel` alone has no head over the words.
        let none_of_it = part == Part::Heads && weights.tensors.is_empty();
        if !missing.is_empty() && !none_of_it {
            return Err(Blip2Error::Format {
                path: self.source.path().to_path_buf(),
                reason: format!(
                    "is no BERT of {} layers: it lacks {}",
                    self.qformer.num_hidden_layers,
                    shortened(&missing)
                ),
            });
        }
        fill_known(module, part, &weights, Precision::F32, None, self.device)
    }

    /// The tensor under today's name or an older one, with or without the module's.
    fn find(&self, key: &str) -> Option<&StoredTensor> {
        let tensors = self.source.tensors();
        let old = OLD_NORM
            .iter()
            .find_map(|(new, old)| Some(format!("{}{old}", key.strip_suffix(new)?)));
        let names = [Some(key.to_string()), old];
        names.into_iter().flatten().find_map(|key| {
            let bare = key.strip_prefix(PREFIX).unwrap_or(&key);
            tensors.get(&key).or_else(|| tensors.get(bare))
        })
    }

    /// `weight` with drawn rows for words that it lacks.
    fn more_words(&self, weight: Weight, expected: &[usize]) -> Result<Weight, Blip2Error> {
        let (Some(&rows), Some(&wanted)) = (weight.shape.first(), expected.first()) else {
            return Ok(weight);
        };
        if rows >= wanted || weight.shape[1..] != expected[1..] {
            // Equal, or another shape, which is named where it is filled.
            return Ok(weight);
        }
        let width: usize = expected[1..].iter().product();
        let count = (wanted - rows) * width;
        // A bias has no width, and new ones are zero.
        let std = match expected.len() {
            1 => 0.0,
            _ => self.qformer.initializer_range,
        };
        let device = self.device.clone().inner();
        let drawn = Tensor::<1>::random([count], Distribution::Normal(0.0, std), &device);
        let drawn: Arc<[u8]> = drawn
            .into_data()
            .convert_dtype(DType::F32)
            .as_bytes()
            .into();
        let (file, key) = (weight.file.clone(), weight.key.clone());
        Ok(Weight::new(
            file,
            key,
            DType::F32,
            expected.to_vec(),
            move || {
                let mut bytes = weight.read(DType::F32)?;
                bytes.extend_from_slice(&drawn);
                Ok(bytes)
            },
        ))
    }
}

/// Tensors with a row for each word.
fn is_by_word(path: &str) -> bool {
    path == "text_embeddings.word_embeddings.weight" || path == "cls.bias"
}

/// BERT's key of a tensor; none for what is new in a Q-Former.
fn key_of(address: &Address) -> Option<String> {
    let path = &address.path;
    let key = match address.part {
        Part::MultimodalBackbone => {
            if path == "query_tokens" || path.contains(".crossattention.") {
                return None;
            }
            Names::Lavis.key(path).replace("_query.", ".")
        }
        Part::Heads if path.starts_with("cls.") => {
            head_key(Layout::Lavis(blip2_vision::keymap::Names::Eva), path)
        }
        _ => return None,
    };
    key.strip_prefix(LAVIS_PREFIX).map(String::from)
}
