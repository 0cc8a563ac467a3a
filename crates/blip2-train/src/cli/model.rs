//! `--model`: from a run folder, or a checkpoint of any known layout, to a captioner.

use std::path::Path;

use blip2::checkpoint::{Import, Precision};
use blip2::lora::Adapter;
use blip2::{Blip2Caption, Blip2CaptionConfig, Compute, TowerCompute, TowersPrecision};
use blip2_data::DataError;
use blip2_data::transforms::{ImageProcessor, ImageProcessorConfig};
use blip2_lm::GenerationConfig;
use burn::module::Module;
use burn::tensor::Device;
use serde::Serialize;

use super::bytes_bar;
use crate::RunError;
use crate::model_path::{self, Needed};
use crate::recipe::{Recipe, TaskKind};
use crate::recipe_file;
use crate::run::{RunFolder, checkpoint};
use crate::tasks::CaptionTask;

/// Images a batch where no recipe says it.
const BATCH_SIZE: usize = 8;
/// Threads that read ahead where no recipe says it.
const NUM_WORKERS: usize = 1;

/// A captioner ready to caption.
pub(super) struct LoadedModel {
    pub model: Blip2Caption,
    pub processor: ImageProcessor,
    pub processor_config: ImageProcessorConfig,
    pub generation: GenerationConfig,
    pub batch_size: usize,
    pub num_workers: usize,
}

/// In what precision the matrices of frozen towers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum TowerDType {
    /// As the checkpoint has them.
    Stored,
    /// 32 bits.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Linear layers in eight bits, embeddings in bfloat16.
    Int8,
    /// Linear layers in four bits, embeddings in bfloat16; not on devices of servers.
    Int4,
    /// By what the device has, as `precision = "auto"` in a config; products of towers too.
    Auto,
}

impl TowerDType {
    /// Fails if `device` lacks it.
    pub fn precision(self, device: &Device) -> Result<Precision, RunError> {
        let (word, precision) = match self {
            Self::Stored => ("stored", Precision::Stored),
            Self::F32 => ("f32", Precision::F32),
            Self::F16 => ("f16", Precision::F16),
            Self::Bf16 => ("bf16", Precision::BF16),
            Self::Int8 => ("int8", Precision::Int8),
            Self::Int4 => ("int4", Precision::Int4),
            Self::Auto => ("auto", TowersPrecision::Auto.on(device).0),
        };
        match precision.available_on(device) {
            true => Ok(precision),
            false => Err(RunError::Usage(format!(
                "--dtype {word}: this device has no {word}; take f32 or auto"
            ))),
        }
    }

    /// The products that go with it, if it says so.
    fn compute(self, device: &Device) -> Option<TowerCompute> {
        (self == Self::Auto).then(|| {
            let compute = TowersPrecision::Auto.on(device).1;
            TowerCompute {
                vision_backbone: compute,
                text_backbone: compute,
                ..TowerCompute::default()
            }
        })
    }
}

/// In what precision the model multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum TowerProducts {
    /// 32 bits.
    F32,
    /// bfloat16, with sums in 32 bits.
    Bf16,
    /// Eight bits in the linear layers of the towers, bfloat16 in all else.
    Int8,
}

impl TowerProducts {
    fn compute(self) -> TowerCompute {
        let (tower, trained) = match self {
            Self::F32 => (Compute::F32, Compute::F32),
            Self::Bf16 => (Compute::BF16, Compute::BF16),
            Self::Int8 => (Compute::INT8, Compute::BF16),
        };
        TowerCompute {
            vision_backbone: tower,
            multimodal_backbone: trained,
            text_backbone: tower,
        }
    }
}

/// Loads the best checkpoint of a run, or any other checkpoint, on the plain device; with the adapters
/// in the folder `lora`.
pub(super) fn load(
    path: &Path,
    lora: Option<&Path>,
    dtype: TowerDType,
    compute: Option<TowerProducts>,
    device: &Device,
) -> Result<LoadedModel, RunError> {
    // What is wrong with it is said before the long work.
    let adapter = lora.map(Adapter::read).transpose()?;
    let mut loaded = load_as_it_is(path, dtype, device)?;
    if let Some(adapter) = adapter {
        loaded.model = loaded.model.with_adapter(&adapter, device)?;
        for line in loaded.model.lora_summary() {
            eprintln!("{line}");
        }
    }
    let compute = compute.map(TowerProducts::compute);
    if let Some(compute) = compute.or_else(|| dtype.compute(device)) {
        loaded.model = loaded.model.with_compute(compute);
    }
    Ok(loaded)
}

fn load_as_it_is(path: &Path, dtype: TowerDType, device: &Device) -> Result<LoadedModel, RunError> {
    let path = model_path::find(path, Needed::Checkpoint)?;
    if RunFolder::is_at(&path) {
        return Ok(from_run(load_run(&path, device)?)?);
    }
    let checkpoint = Import::new(path).open()?;
    let precision = dtype.precision(device)?;
    let imported = checkpoint.load(device, precision, Some(bytes_bar("weights")))?;
    Ok(LoadedModel {
        processor: imported.processor.init()?,
        processor_config: imported.processor,
        model: imported.model,
        generation: imported.generation,
        batch_size: BATCH_SIZE,
        num_workers: NUM_WORKERS,
    })
}

/// The best captioner of a run, with what made it.
pub(super) struct LoadedRun {
    pub model: Blip2Caption,
    pub config: Blip2CaptionConfig,
    pub recipe: Recipe,
}

/// The best checkpoint of the run in `path`.
pub(super) fn load_run(path: &Path, device: &Device) -> Result<LoadedRun, RunError> {
    let folder = RunFolder::open(path)?;
    let recipe = recipe_file::read(&folder.config(), &[])?;
    let Some(config) = recipe.model.clone() else {
        let what = match recipe.task {
            TaskKind::Stage1 => {
                "is a run of stage 1, which writes no captions: use it with features, match or \
                 evaluate --task retrieval, or as `init_cfg.checkpoint` of stage 2"
            }
            _ => "trained a tower, not a captioner",
        };
        return Err(RunError::Usage(format!("{} {what}", path.display())));
    };
    // Frozen towers without a file are drawn as the run drew them.
    device.seed(recipe.seed);
    let task = CaptionTask {
        model: crate::model::constants(&config, device)?,
    };
    let model = checkpoint::best(&folder)?.load_into(task)?.model.valid();
    Ok(LoadedRun {
        model,
        config,
        recipe,
    })
}

fn from_run(run: LoadedRun) -> Result<LoadedModel, DataError> {
    let evaluation = run.recipe.evaluation.as_ref();
    let generation = evaluation.map(|evaluation| evaluation.test_generation.clone());
    Ok(LoadedModel {
        model: run.model,
        processor: run.config.data_preprocessor.init()?,
        generation: generation.unwrap_or_default(),
        batch_size: evaluation.map_or(BATCH_SIZE, |evaluation| evaluation.batch_size),
        num_workers: run.recipe.data.num_workers,
        processor_config: run.config.data_preprocessor,
    })
}
