//! Captioners and towers as files that other programs read.

mod burnpack;
mod entries;
mod model;
mod pickle;
mod safetensors;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blip2_data::tokenizer::CaptionTokenizer;
use blip2_data::transforms::ImageProcessorConfig;
use blip2_lm::{GenerationConfig, Opt, OptConfig};
use blip2_vision::keymap::Names;
use blip2_vision::{VisionConfig, VisionTransformer};
use burn::tensor::DType;
use serde_json::json;

use self::entries::{Entry, entries};
pub(super) use self::model::weights_of_stage1;
pub use self::model::{weights_of, weights_of_module};
use super::fill::Expected;
use super::hugging_face::{write_config, write_opt_config, write_vision_config};
use super::names::{Address, Layout, Meaning, Part};
use super::source::Source;
use super::weights::Weights;
use super::{Architecture, Progress};
use crate::Blip2Error;

/// The precision of written weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsDType {
    /// 32 bits, exact.
    F32,
    /// 16 bits: half the size, about three decimal digits.
    F16,
    /// 16 bits with the range of 32: two decimal digits.
    BF16,
}

impl WeightsDType {
    /// torch's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        }
    }

    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }
}

/// The files that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// What `transformers.Blip2ForConditionalGeneration.from_pretrained` reads.
    HuggingFace,
    /// `model.pth` with LAVIS's names, as its `load_checkpoint` reads it.
    Lavis,
    /// `model.bpk`, Burn's own format with our names.
    Burnpack,
}

impl ExportFormat {
    /// Whose names the files have; `clip` is whether the image encoder is CLIP's.
    pub(super) fn layout(self, clip: bool, folder: &Path) -> Result<Layout, Blip2Error> {
        match self {
            Self::HuggingFace if clip => Err(Blip2Error::Format {
                path: folder.to_path_buf(),
                reason: "transformers' BLIP-2 has no CLIP encoder: its `Blip2VisionModel` lacks \
                         the norm before the blocks; write `lavis` or `burnpack`"
                    .into(),
            }),
            Self::HuggingFace => Ok(Layout::HuggingFace),
            Self::Lavis if clip => Ok(Layout::Lavis(Names::OpenAiClip)),
            Self::Lavis => Ok(Layout::Lavis(Names::Eva)),
            Self::Burnpack => Ok(Layout::Native),
        }
    }
}

/// The weights' files of an export.
pub(super) struct TensorFiles<'a> {
    pub weights: &'a Weights,
    pub expected: &'a BTreeMap<Address, Expected>,
    pub layout: Layout,
    pub format: ExportFormat,
    pub dtype: Option<WeightsDType>,
}

impl TensorFiles<'_> {
    /// Writes them into `folder`, which must be new or empty.
    pub fn write(&self, folder: &Path, progress: &Progress) -> Result<Vec<PathBuf>, Blip2Error> {
        std::fs::create_dir_all(folder).map_err(Blip2Error::io(folder))?;
        let mut contents = std::fs::read_dir(folder).map_err(Blip2Error::io(folder))?;
        if contents.next().is_some() {
            return Err(Blip2Error::Format {
                path: folder.to_path_buf(),
                reason: "is not empty: name a new folder".into(),
            });
        }
        let burn_layout = self.format == ExportFormat::Burnpack;
        let entries = entries(
            self.weights,
            self.expected,
            self.layout,
            self.dtype,
            burn_layout,
        )?;
        match self.format {
            ExportFormat::HuggingFace => safetensors::write_shards(entries, folder, progress),
            ExportFormat::Lavis => {
                let path = pickle::write(entries, &folder.join("model.pth"), progress)?;
                Ok(vec![path])
            }
            ExportFormat::Burnpack => {
                let path = burnpack::write(entries, &folder.join("model.bpk"), progress)?;
                Ok(vec![path])
            }
        }
    }

    /// Reads them back, `meaning` telling what their keys are, and compares.
    pub fn verify(
        &self,
        folder: &Path,
        meaning: impl Fn(Layout, &str) -> Meaning,
    ) -> Result<(), Blip2Error> {
        let written = Weights::with(&Source::open(folder)?, meaning)?;
        verify::verify(self.weights, &written, folder, self.expected, self.dtype)
    }
}

/// Writes the image processor's files.
pub(super) fn write_processor(
    processor: &ImageProcessorConfig,
    num_query_tokens: usize,
    folder: &Path,
) -> Result<(), Blip2Error> {
    let image_processor = processor.to_hugging_face();
    let processor = json!({
        "processor_class": "Blip2Processor",
        "num_query_tokens": num_query_tokens,
        "image_processor": image_processor,
    });
    // Transformers 5 reads the first, older ones the second.
    for (name, value) in [
        ("processor_config.json", &processor),
        ("preprocessor_config.json", &image_processor),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, format!("{value:#}\n")).map_err(Blip2Error::io(&path))?;
    }
    Ok(())
}

/// A captioner that is to be written, and what belongs beside its weights.
#[derive(Debug)]
pub struct Export<'a> {
    /// The dimensions.
    pub architecture: &'a Architecture,
    /// Every tensor.
    pub weights: &'a Weights,
    /// How images become tensors.
    pub processor: &'a ImageProcessorConfig,
    /// How captions are written.
    pub generation: &'a GenerationConfig,
    /// The tokenizer, where there is one.
    pub tokenizer: Option<&'a CaptionTokenizer>,
    /// The token that stands for an image in transformers' prompts.
    pub image_token_id: Option<u32>,
}

impl Export<'_> {
    /// Writes the captioner into `folder`, reads it back and compares every tensor. Beside the
    /// weights it writes `config.json`, `generation_config.json`, the processor's and the
    /// tokenizer's files, so that every format can be read without anything else.
    ///
    /// Tensors go through memory one by one.
    ///
    /// # Errors
    ///
    /// A folder that is not empty, unreadable weights, a full disk, or a tensor that came back
    /// different.
    pub fn write(
        &self,
        folder: &Path,
        format: ExportFormat,
        dtype: Option<WeightsDType>,
        progress: &Progress,
    ) -> Result<Vec<PathBuf>, Blip2Error> {
        let expected = self.architecture.expected()?;
        let clip = self.architecture.vision.pre_layernorm;
        let files = TensorFiles {
            weights: self.weights,
            expected: &expected,
            layout: format.layout(clip, folder)?,
            format,
            dtype,
        };
        let written = files.write(folder, progress)?;
        self.write_settings(folder, dtype)?;
        files.verify(folder, Layout::meaning)?;
        Ok(written)
    }

    fn write_settings(&self, folder: &Path, dtype: Option<WeightsDType>) -> Result<(), Blip2Error> {
        let stored = || {
            let matrix = self.weights.get(Part::TextBackbone, "embed_tokens.weight");
            match matrix.map(|matrix| matrix.dtype) {
                Some(DType::F16) => WeightsDType::F16,
                Some(DType::BF16) => WeightsDType::BF16,
                _ => WeightsDType::F32,
            }
        };
        let dtype = dtype.unwrap_or_else(stored);
        let mut image_token_id = self.image_token_id;
        if let Some(tokenizer) = self.tokenizer {
            let rows = self.architecture.text.vocab_size;
            image_token_id = tokenizer.save_hugging_face(folder, image_token_id, rows)?;
        }
        write_config(
            self.architecture,
            self.generation,
            image_token_id,
            dtype,
            folder,
        )?;
        let num_query_tokens = self.architecture.qformer.num_query_tokens;
        write_processor(self.processor, num_query_tokens, folder)
    }
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
    std::fs::create_dir_all(folder).map_err(Blip2Error::io(folder))?;
    let layout = Layout::Vision(Names::Blip2);
    let weights = weights_of_module(Part::VisionBackbone, module, layout, folder);
    let expected = super::architecture::list(Part::VisionBackbone, module);
    write_tower(
        entries(&weights, &expected, layout, Some(dtype), false)?,
        folder,
    )?;
    write_vision_config(config, folder)
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
    std::fs::create_dir_all(folder).map_err(Blip2Error::io(folder))?;
    let weights = weights_of_module(Part::TextBackbone, module, Layout::Opt, folder);
    let expected = super::architecture::list(Part::TextBackbone, module);
    write_tower(
        entries(&weights, &expected, Layout::Opt, Some(dtype), false)?,
        folder,
    )?;
    write_opt_config(config, folder)
}

/// Writes a safetensors file of f32 tensors, key, shape and numbers of each, with `notes` in its header.
///
/// # Errors
///
/// If it can't be written.
pub(crate) fn write_tensors(
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    notes: &[(&str, String)],
    path: &Path,
) -> Result<(), Blip2Error> {
    let mut entries: Vec<Entry> = tensors
        .into_iter()
        .map(|(key, shape, values)| Entry {
            key,
            shape,
            dtype: DType::F32,
            read: Arc::new(move || Ok(values.iter().flat_map(|x| x.to_le_bytes()).collect())),
        })
        .collect();
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    let silent: Progress = Arc::new(|_, _| {});
    safetensors::write_noted(entries, notes, path, &silent)
}

fn write_tower(entries: Vec<Entry>, folder: &Path) -> Result<(), Blip2Error> {
    let silent: Progress = Arc::new(|_, _| {});
    safetensors::write(entries, &folder.join("model.safetensors"), &silent)
}
