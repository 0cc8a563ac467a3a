//! `blip2 convert`.

use std::path::{Path, PathBuf};

use blip2::checkpoint::export::{Export, ExportFormat, weights_of};
use blip2::checkpoint::{Import, WeightsDType, export_stage1};
use blip2::lora::Adapter;
use blip2::presets;
use burn::tensor::Device;

use super::model::{TowerDType, load};
use super::stage1::is_run;
use super::{bytes_bar, result_line, stage1};
use crate::RunError;
use crate::model_path::{self, Needed};
use crate::run::RunFolder;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run folder, a Hugging Face folder, a .pth of LAVIS or mmpretrain, or a model of the hub.
    #[arg(long, value_name = "MODEL")]
    from: PathBuf,
    /// The folder to write; new or empty.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Whose layout to write.
    #[arg(long, value_enum, default_value_t = Format::Huggingface)]
    format: Format,
    /// The checkpoint is of stage 1: written as transformers' `Blip2ForImageTextRetrieval` or LAVIS's
    /// `blip2`. Of a run it is known.
    #[arg(long)]
    stage1: bool,
    /// The precision to write; without it every tensor keeps its own.
    #[arg(long, value_enum)]
    dtype: Option<DType>,
    /// Adds LoRA adapters to the weights: those of the run, or of --lora.
    #[arg(long)]
    merge_lora: bool,
    /// A folder with LoRA adapters for the model, in PEFT's layout.
    #[arg(long, value_name = "DIR", requires = "merge_lora")]
    lora: Option<PathBuf>,
    /// Writes the run's LoRA adapters alone, in PEFT's layout.
    #[arg(long, conflicts_with_all = ["merge_lora", "format", "dtype"])]
    adapter: bool,
    #[command(flatten)]
    gaps: Gaps,
}

/// What fills the gaps of a checkpoint that does not say or hold everything.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Gaps {
    /// Takes weights, config, tokenizer and preprocessing that the checkpoint lacks from here; may
    /// be repeated.
    #[arg(long, value_name = "MODEL")]
    base: Vec<PathBuf>,
    /// The published model that the checkpoint is of.
    #[arg(long, value_name = "NAME", value_parser = parse_preset)]
    preset: Option<&'static str>,
    /// The folder or the model of the hub with the language model's tokenizer.
    #[arg(long, value_name = "MODEL")]
    tokenizer: Option<PathBuf>,
    /// Another size of images, in pixels: positions are interpolated.
    #[arg(long, value_name = "N")]
    image_size: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// config.json, safetensors, tokenizer and processor: what transformers reads.
    Huggingface,
    /// model.pth with LAVIS's names.
    Lavis,
    /// model.bpk: Burn's own format.
    Burnpack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DType {
    F32,
    F16,
    Bf16,
}

fn parse_preset(name: &str) -> Result<&'static str, String> {
    presets::NAMES
        .into_iter()
        .find(|preset| *preset == name)
        .ok_or_else(|| format!("known are {}", presets::NAMES.join(", ")))
}

impl Gaps {
    /// What to import; bases and tokenizer may come from the hub.
    pub fn import(&self, path: PathBuf) -> Result<Import, RunError> {
        let base = |name: &PathBuf| model_path::find(name, Needed::Checkpoint);
        let tokenizer = |name: &PathBuf| model_path::find(name, Needed::Tokenizer);
        Ok(Import {
            path,
            bases: self.base.iter().map(base).collect::<Result<_, _>>()?,
            preset: self.preset.and_then(presets::preset),
            tokenizer: self.tokenizer.as_ref().map(tokenizer).transpose()?,
            image_size: self.image_size,
        })
    }
}

pub(super) fn run(args: Args, device: &Device) -> Result<(), RunError> {
    let format = match args.format {
        Format::Huggingface => ExportFormat::HuggingFace,
        Format::Lavis => ExportFormat::Lavis,
        Format::Burnpack => ExportFormat::Burnpack,
    };
    let dtype = args.dtype.map(|dtype| match dtype {
        DType::F32 => WeightsDType::F32,
        DType::F16 => WeightsDType::F16,
        DType::Bf16 => WeightsDType::BF16,
    });
    let from = model_path::find(&args.from, Needed::Checkpoint)?;
    if args.adapter {
        return super::adapter::write(&from, &args.to, args.gaps.base.first(), device);
    }
    let progress = bytes_bar("writing");
    let files = if is_run(&from)? || args.stage1 {
        let (bases, tokenizer) = (&args.gaps.base, args.gaps.tokenizer.as_deref());
        let loaded = stage1::load(&from, bases, tokenizer, TowerDType::Stored, device)?;
        let processor = &loaded.processor_config;
        export_stage1(&loaded.model, processor, &args.to, format, dtype, &progress)?
    } else if RunFolder::is_at(&from) {
        let lora = args.lora.as_deref();
        let loaded = load(&from, lora, TowerDType::F32, None, device)?;
        match (loaded.model.adapted_layers().is_empty(), args.merge_lora) {
            (false, false) => {
                return Err(RunError::Usage(format!(
                    "{} has LoRA adapters: --merge-lora writes the whole model with them in its \
                     weights, --adapter the adapters alone",
                    from.display()
                )));
            }
            (true, true) => return Err(no_adapters(&from)),
            _ => {}
        }
        let (model, generation) = (&loaded.model, &loaded.generation);
        let mut generation = generation.clone();
        generation.eos_token_ids = model.eos_token_ids().to_vec();
        let weights = weights_of(model, &from);
        let export = Export {
            architecture: model.architecture(),
            weights: &weights,
            processor: &loaded.processor_config,
            generation: &generation,
            tokenizer: Some(model.tokenizer()),
            image_token_id: None,
        };
        export.write(&args.to, format, dtype, &progress)?
    } else {
        let adapter = args.lora.as_deref().map(Adapter::read).transpose()?;
        if args.merge_lora && adapter.is_none() {
            return Err(no_adapters(&from));
        }
        let mut checkpoint = args.gaps.import(from)?.open()?;
        eprint!("{}", checkpoint.report);
        checkpoint.report.check()?;
        if let Some(adapter) = &adapter {
            adapter.merge_into(&mut checkpoint.weights, &checkpoint.architecture)?;
            eprintln!(
                "LoRA adapters of {} layers are merged",
                adapter.layers.len()
            );
        }
        let tokenizer = match &checkpoint.tokenizer {
            Some(_) => Some(checkpoint.read_tokenizer()?),
            None => {
                eprintln!(
                    "note: no tokenizer was found; captioning with {} needs one (--tokenizer)",
                    args.to.display()
                );
                None
            }
        };
        let export = Export {
            architecture: &checkpoint.architecture,
            weights: &checkpoint.weights,
            processor: &checkpoint.processor,
            generation: &checkpoint.generation,
            tokenizer: tokenizer.as_ref(),
            image_token_id: checkpoint.image_token_id,
        };
        export.write(&args.to, format, dtype, &progress)?
    };
    eprintln!("every tensor was read back and is the same");
    for file in files {
        result_line(&file.display().to_string())?;
    }
    Ok(())
}

/// The error of `--merge-lora` where there is nothing to merge.
fn no_adapters(from: &Path) -> RunError {
    RunError::Usage(format!(
        "--merge-lora: {} has no LoRA adapters: name a folder of some with --lora",
        from.display()
    ))
}
