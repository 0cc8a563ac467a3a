//! `blip2 inspect --plan`.

use std::path::Path;

use burn::tensor::Device;

use super::{json, result_line};
use crate::RunError;
use crate::plan::devices::THIS;
use crate::plan::{Plan, Settings, Workload, images};
use crate::recipe_file;

/// What a run of a config costs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What a run of the config costs: operations, memory, time and energy.
    #[arg(long)]
    pub plan: bool,
    /// The device of the plan: h100, a100-80, a100-40, rtx4090, … or this, which measures the machine
    /// at hand.
    #[arg(long, value_name = "WORD", default_value = THIS, requires = "plan")]
    device_type: String,
    /// Towers that multiply in bf16, whatever the config says.
    #[arg(long, requires = "plan")]
    bf16: bool,
    /// Items of an epoch, where the data are not on this machine.
    #[arg(long, value_name = "N", requires = "plan")]
    train_images: Option<usize>,
    /// The power of this machine, for the energy.
    #[arg(long, value_name = "WATTS", requires = "plan")]
    watts: Option<f64>,
    /// Overrides one field of the config, as for train; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", requires = "plan")]
    set: Vec<String>,
    /// The plan as one JSON object.
    #[arg(long, requires = "plan")]
    json: bool,
}

pub(super) fn run(args: Args, config: &Path, device: &Device) -> Result<(), RunError> {
    let recipe = recipe_file::look_at(config, &args.set)?;
    let image_seconds = match args.device_type == THIS {
        true => images::seconds_an_image(&recipe, device),
        false => None,
    };
    let settings = Settings {
        device_type: args.device_type,
        bf16: args.bf16,
        items: args.train_images,
        watts: args.watts,
        image_seconds,
    };
    let plan = Plan::new(Workload::new(&recipe, true)?, &settings, device)?;
    match args.json {
        true => result_line(&json(&plan)?),
        false => result_line(&plan.to_text()),
    }
}
