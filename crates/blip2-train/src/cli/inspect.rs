//! `blip2 inspect`.

use std::path::PathBuf;

use blip2::Blip2Caption;
use blip2::checkpoint::Precision;
use blip2::presets;
use burn::tensor::Device;

use super::convert::Gaps;
use super::inspect_plan;
use super::model::{LoadedRun, TowerDType, load_run};
use super::result_line;
use super::stage1::{is_run, load as load_stage1};
use crate::RunError;
use crate::model_path::{self, Needed};
use crate::recipe_file;
use crate::report::{Estimate, Frozen, memory, parameter_rows, parameter_table, stage1_rows};
use crate::run::RunFolder;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run folder, a checkpoint of any known layout, a model of the hub (owner/name), a config
    /// file, or the name of a published model for its dimensions alone.
    #[arg(value_name = "MODEL_OR_CONFIG", required_unless_present = "config")]
    target: Option<PathBuf>,
    /// A config file.
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    config: Option<PathBuf>,
    #[command(flatten)]
    plan: inspect_plan::Args,
    #[command(flatten)]
    gaps: Gaps,
}

/// Images a batch for the estimate where no recipe says it.
const BATCH_SIZE: usize = 8;

pub(super) fn run(args: Args, device: &Device) -> Result<(), RunError> {
    // One of the two is there.
    let target = args.config.or(args.target).unwrap_or_default();
    let is_config = target.extension().is_some_and(|ext| ext == "toml");
    if args.plan.plan {
        return match is_config {
            true => inspect_plan::run(args.plan, &target, device),
            false => Err(RunError::Usage(format!(
                "--plan needs a config file (.toml), which {} is not",
                target.display()
            ))),
        };
    }
    if is_config {
        let recipe = recipe_file::read(&target, &[])?;
        if let Some(config) = &recipe.stage1 {
            let model = config.init(device)?;
            return result_line(&parameter_table(&stage1_rows(&model)));
        }
        let Some(config) = &recipe.model else {
            return Err(RunError::Usage(format!(
                "{} describes no captioner",
                target.display()
            )));
        };
        let model = config.init(device)?.with_lora(&config.lora, device)?;
        let rows = parameter_rows(model.architecture(), &Frozen::of(&model));
        adapters(&model)?;
        return table(&rows, model.architecture(), recipe.train.batch_size);
    }
    if is_run(&target)? {
        let loaded = load_stage1(&target, &[], None, TowerDType::F32, device)?;
        result_line("weights: every tensor loaded; missing: none; unexpected: none")?;
        return result_line(&parameter_table(&stage1_rows(&loaded.model)));
    }
    if RunFolder::is_at(&target) {
        let LoadedRun { model, recipe, .. } = load_run(&target, device)?;
        result_line("weights: every tensor loaded; missing: none; unexpected: none")?;
        let rows = parameter_rows(model.architecture(), &Frozen::of(&model));
        adapters(&model)?;
        return table(&rows, model.architecture(), recipe.train.batch_size);
    }
    let preset = target.to_str().and_then(presets::preset);
    if let (Some(preset), false) = (preset, target.exists()) {
        result_line(&format!("{}: {}", preset.name, preset.source))?;
        let Some(architecture) = preset.architecture() else {
            let parts = [
                ("vision_backbone", preset.vision.num_params()),
                ("multimodal_backbone", preset.qformer.num_params()),
            ];
            for (name, params) in parts {
                result_line(&format!(
                    "{name:<22}{:>14}",
                    crate::report::thousands(params)
                ))?;
            }
            return result_line("no language model: stage 1");
        };
        let rows = parameter_rows(&architecture, &Frozen::both());
        return table(&rows, &architecture, BATCH_SIZE);
    }
    let is_name = |name: &str| !name.contains(['/', '.', '\\']);
    if !target.exists() && target.to_str().is_some_and(is_name) {
        return Err(RunError::Usage(format!(
            "{} is neither a file or folder nor one of {}",
            target.display(),
            presets::NAMES.join(", ")
        )));
    }
    let target = model_path::find(&target, Needed::Checkpoint)?;
    let checkpoint = args.gaps.import(target)?.open()?;
    result_line(checkpoint.report.to_string().trim_end())?;
    let rows = parameter_rows(&checkpoint.architecture, &Frozen::both());
    table(&rows, &checkpoint.architecture, BATCH_SIZE)?;
    Ok(checkpoint.report.check()?)
}

/// What has adapters.
fn adapters(model: &Blip2Caption) -> Result<(), RunError> {
    let lines = model.lora_summary();
    lines.iter().try_for_each(|line| result_line(line))
}

fn table(
    rows: &[crate::report::PartRow],
    architecture: &blip2::checkpoint::Architecture,
    batch_size: usize,
) -> Result<(), RunError> {
    result_line(&parameter_table(rows))?;
    let Estimate { train, caption } = memory(rows, architecture, batch_size, Precision::F32);
    let half = memory(rows, architecture, batch_size, Precision::BF16);
    result_line(&format!(
        "memory estimate: training {} (batch {batch_size}), captioning {}; with towers in half \
         precision: {} and {}",
        mebibytes(train),
        mebibytes(caption),
        mebibytes(half.train),
        mebibytes(half.caption),
    ))
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.0} MiB", bytes as f64 / (1 << 20) as f64)
}
