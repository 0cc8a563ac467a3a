//! A model of stage 1 as files that other programs read.

use std::path::{Path, PathBuf};

use blip2_data::transforms::ImageProcessorConfig;
use serde_json::json;

use super::import::expected;
use super::names;
use crate::Blip2Error;
use crate::checkpoint::export::{ExportFormat, TensorFiles, weights_of_stage1, write_processor};
use crate::checkpoint::hugging_face::write_retrieval_config;
use crate::checkpoint::names::Part;
use crate::checkpoint::{Progress, WeightsDType};
use crate::stage1::Blip2Qformer;

/// Writes `model` into the new folder `folder`: as transformers' `Blip2ForImageTextRetrieval`
/// (which has no place for temperature and words), or as LAVIS's `blip2` checkpoint, with tokenizer and
/// processor beside it. Every tensor is read back and compared.
///
/// # Errors
///
/// A folder that is not empty, a full disk, a tensor that came back different, or an architecture
/// that the format does not have.
pub fn export_stage1(
    model: &Blip2Qformer,
    processor: &ImageProcessorConfig,
    folder: &Path,
    format: ExportFormat,
    dtype: Option<WeightsDType>,
    progress: &Progress,
) -> Result<Vec<PathBuf>, Blip2Error> {
    let architecture = model.architecture();
    let layout = format.layout(architecture.vision.pre_layernorm, folder)?;
    let mut tensors = expected(architecture)?;
    tensors
        .retain(|address, _| address.part != Part::Heads || names::has_head(layout, &address.path));
    let weights = weights_of_stage1(model, folder);
    let files = TensorFiles {
        weights: &weights,
        expected: &tensors,
        layout,
        format,
        dtype,
    };
    let written = files.write(folder, progress)?;
    model.tokenizer().save(folder)?;
    write_retrieval_config(architecture, dtype.unwrap_or(WeightsDType::F32), folder)?;
    write_processor(processor, architecture.qformer.num_query_tokens, folder)?;
    let special = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
        "bos_token": "[DEC]",
    });
    let path = folder.join("tokenizer_config.json");
    std::fs::write(&path, format!("{special:#}\n")).map_err(Blip2Error::io(&path))?;
    files.verify(folder, names::meaning)?;
    Ok(written)
}
