//! `--model` of stage 1: from a run folder, or a checkpoint of any known layout, to its model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blip2::checkpoint::Stage1Import;
use blip2::stage1::Blip2Qformer;
use blip2_data::annotations::OnError;
use blip2_data::images::read_images;
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::{DecodeLimits, ImageProcessor, ImageProcessorConfig, probe};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::bytes_bar;
use super::model::TowerDType;
use crate::RunError;
use crate::model_path::{self, Needed};
use crate::recipe::Recipe;
use crate::recipe_file;
use crate::run::{RunFolder, checkpoint};
use crate::tasks::Stage1Task;

/// Images a batch where no recipe says it.
const BATCH_SIZE: usize = 8;
/// Threads that read ahead where no recipe says it.
const NUM_WORKERS: usize = 1;
/// Candidates that matching puts in order where no recipe says it: the paper's.
const RERANK: usize = 128;

/// Which model, and in what precision.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// A run folder of stage 1, its checkpoint of LAVIS or transformers
    /// (`Blip2ForImageTextRetrieval`), or a model of the hub (owner/name).
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    gaps: Gaps,
    /// In what precision the frozen image encoder of an imported model is kept.
    #[arg(long, value_enum, default_value_t = TowerDType::Stored)]
    dtype: TowerDType,
}

/// What fills the gaps of a checkpoint.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Gaps {
    /// Takes what a checkpoint of stage 1 lacks, such as the image encoder, from here; may be
    /// repeated.
    #[arg(long, value_name = "MODEL")]
    pub base: Vec<PathBuf>,
    /// The folder or the model of the hub with BERT's tokenizer, for a checkpoint of stage 1.
    #[arg(long, value_name = "MODEL")]
    pub tokenizer: Option<PathBuf>,
}

/// A model of stage 1 ready for use.
pub(super) struct LoadedStage1 {
    pub model: Blip2Qformer,
    pub processor: ImageProcessor,
    pub processor_config: ImageProcessorConfig,
    pub batch_size: usize,
    pub num_workers: usize,
    pub rerank: usize,
}

impl Args {
    /// Loads the best checkpoint of a run, or any other checkpoint, on the plain device.
    pub fn load(&self, device: &Device) -> Result<LoadedStage1, RunError> {
        load(
            &self.model,
            &self.gaps.base,
            self.gaps.tokenizer.as_deref(),
            self.dtype,
            device,
        )
    }
}

/// As [`Args::load`], of its parts.
pub(super) fn load(
    model: &Path,
    bases: &[PathBuf],
    tokenizer: Option<&Path>,
    dtype: TowerDType,
    device: &Device,
) -> Result<LoadedStage1, RunError> {
    let path = model_path::find(model, Needed::Checkpoint)?;
    if RunFolder::is_at(&path) {
        return load_run(&path, device);
    }
    let base = |name: &PathBuf| model_path::find(name, Needed::Checkpoint);
    let tokenizer = tokenizer.map(|name| model_path::find(name, Needed::Tokenizer));
    let import = Stage1Import {
        path,
        bases: bases.iter().map(base).collect::<Result<_, _>>()?,
        tokenizer: tokenizer.transpose()?,
    };
    let checkpoint = import.open()?;
    let precision = dtype.precision(device)?;
    let model = checkpoint.load(device, precision, Some(bytes_bar("weights")))?;
    Ok(LoadedStage1 {
        model,
        processor: checkpoint.processor.init()?,
        processor_config: checkpoint.processor,
        batch_size: BATCH_SIZE,
        num_workers: NUM_WORKERS,
        rerank: RERANK,
    })
}

fn load_run(path: &Path, device: &Device) -> Result<LoadedStage1, RunError> {
    let folder = RunFolder::open(path)?;
    let recipe = recipe_file::read(&folder.config(), &[])?;
    let Some(config) = &recipe.stage1 else {
        return Err(RunError::Usage(format!(
            "{} is no run of stage 1, which features, matching and retrieval need",
            path.display()
        )));
    };
    // A frozen image encoder without a file is drawn as the run drew it.
    device.seed(recipe.seed);
    let task = Stage1Task {
        model: config.init(device)?,
    };
    let model = checkpoint::best(&folder)?.load_into(task)?.model.valid();
    let retrieval = recipe.retrieval.as_ref();
    Ok(LoadedStage1 {
        model,
        processor: config.data_preprocessor.init()?,
        processor_config: config.data_preprocessor.clone(),
        batch_size: retrieval.map_or(BATCH_SIZE, |retrieval| retrieval.batch_size),
        num_workers: recipe.data.num_workers,
        rerank: retrieval.map_or(RERANK, |retrieval| retrieval.test_rerank),
    })
}

/// Whether the run in `path` trained a model of stage 1.
pub(super) fn is_run(path: &Path) -> Result<bool, RunError> {
    if !RunFolder::is_at(path) {
        return Ok(false);
    }
    let recipe: Recipe = recipe_file::read(&RunFolder::open(path)?.config(), &[])?;
    Ok(recipe.stage1.is_some())
}

/// Reads `paths` in batches and hands each on: its images, and the place of its first.
///
/// # Errors
///
/// The first image that can't be read, before any work is done if its header tells.
pub(super) fn for_images(
    paths: &[PathBuf],
    loaded: &LoadedStage1,
    device: &Device,
    mut each: impl FnMut(Tensor<4>, usize) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let limits = DecodeLimits::default();
    for path in paths {
        probe(path, &limits)?;
    }
    let skips = SkipLog::new(OnError::Fail);
    let samples: Arc<Vec<Sample>> = Arc::new(paths.iter().map(|path| sample(path)).collect());
    for (index, chunk) in samples.chunks(loaded.batch_size).enumerate() {
        let rows: Vec<&Sample> = chunk.iter().collect();
        let (images, _) = read_images(&rows, &loaded.processor, &limits, &skips, device)?;
        each(images, index * loaded.batch_size)?;
    }
    Ok(())
}

fn sample(path: &Path) -> Sample {
    let name = path.display().to_string();
    Sample {
        image_id: name.clone(),
        file_name: name,
        path: path.to_path_buf(),
        captions: Vec::new(),
    }
}
