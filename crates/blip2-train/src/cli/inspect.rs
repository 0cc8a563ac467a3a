//! `blip2 inspect`.

use std::path::PathBuf;

use burn::tensor::Device;

use super::model::load;
use super::result_line;
use crate::RunError;
use crate::recipe::Recipe;
use crate::recipe_file;
use crate::report::{PartRow, parameter_rows, parameter_table};

/// Bytes of an f32.
const F32: usize = 4;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run folder, or a config file.
    #[arg(value_name = "MODEL_OR_CONFIG")]
    target: PathBuf,
}

pub(super) fn run(args: Args, device: &Device) -> Result<(), RunError> {
    let (model, recipe): (_, Recipe) = if args.target.is_file() {
        let recipe = recipe_file::read(&args.target, &[])?;
        let Some(config) = &recipe.model else {
            return Err(RunError::Usage(format!(
                "{} describes no captioner",
                args.target.display()
            )));
        };
        (config.init(device)?, recipe)
    } else {
        let loaded = load(&args.target, device)?;
        result_line("weights: every tensor loaded; missing: none; unexpected: none")?;
        (loaded.model, loaded.recipe)
    };
    result_line(&parameter_table(&model))?;
    let rows = parameter_rows(&model);
    let memory = memory(&rows, &recipe);
    result_line(&format!(
        "memory estimate: training {}, captioning {}",
        mebibytes(memory.0),
        mebibytes(memory.1)
    ))
}

/// Bytes for training and for captioning, without what the backend keeps for itself.
///
/// Weights are f32; each trained one has a gradient and two moments. Activations are counted at
/// the places that hold most: per layer about 16 values a token and channel (projections, attention
/// output, the feed-forward's four) plus the attention weights.
fn memory(rows: &[PartRow], recipe: &Recipe) -> (usize, usize) {
    let weights: usize = rows.iter().map(|row| row.params * F32).sum();
    let trained: usize = rows
        .iter()
        .filter(|row| !row.frozen)
        .map(|row| row.params * F32)
        .sum();
    let activations = recipe.model.as_ref().map_or(0, |model| {
        let qformer = &model.multimodal_backbone;
        let tokens = qformer.num_query_tokens;
        let layer = tokens * (16 * qformer.hidden_size + tokens * qformer.num_attention_heads);
        qformer.num_hidden_layers * layer * F32
    });
    let training = weights + 3 * trained + recipe.train.batch_size * activations;
    (training, weights + activations)
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.0} MiB", bytes as f64 / (1 << 20) as f64)
}
