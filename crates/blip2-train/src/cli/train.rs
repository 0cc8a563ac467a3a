//! `blip2 train`.

use std::path::{Path, PathBuf};

use crate::RunError;
use crate::devices::Devices;
use crate::plan::{peak_memory, preflight};
use crate::recipe::Recipe;
use crate::recipe_file;
use crate::run::{RunFolder, StopSignal};
use crate::train::{Start, on_devices};

/// The config of a run without `--config`.
const DEFAULT_CONFIG: &str = "configs/emoji-scenes.toml";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The experiment; without it the built-in default, configs/emoji-scenes.toml.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    config: Option<PathBuf>,
    /// Overrides one field, for example train.epochs=2; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "resume")]
    set: Vec<String>,
    /// Goes on with the run in this folder.
    #[arg(long, value_name = "RUN_DIR", conflicts_with = "out")]
    resume: Option<PathBuf>,
    /// The run's folder; without it runs/NAME-OF-CONFIG, numbered if it exists.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: Args, device: Option<&str>, ignore_memory: bool) -> Result<(), RunError> {
    // The command line counts more than the recipe.
    let open = |recipe: Recipe| -> Result<(Recipe, Devices, Option<usize>), RunError> {
        let devices = match device {
            Some(list) => Devices::open(&Devices::words(list))?,
            None => Devices::open(&recipe.train.devices)?,
        };
        let recipe = on_devices(recipe, &devices)?;
        let estimated = preflight::training(&recipe, devices.main(), ignore_memory)?;
        Ok((recipe, devices, estimated))
    };
    let (start, devices, estimated) = match &args.resume {
        Some(folder) => {
            let start = Start::resume(folder)?;
            let (_, devices, estimated) = open(start.recipe.clone())?;
            (start, devices, estimated)
        }
        None => {
            let config = match args.config {
                Some(config) => config,
                None => default_config()?,
            };
            let recipe = recipe_file::read(&config, &args.set)?;
            let (recipe, devices, estimated) = open(recipe)?;
            let out = args.out.unwrap_or_else(|| {
                let name = config.file_stem().unwrap_or_default().to_string_lossy();
                RunFolder::free_name(&name)
            });
            (Start::new_run(recipe, &out)?, devices, estimated)
        }
    };
    super::logging::to_run(&start.folder)?;
    let version = env!("CARGO_PKG_VERSION");
    let words: Vec<&str> = devices.all().iter().map(|one| &*one.word).collect();
    tracing::info!("blip2 {version} trains on {}", words.join(", "));
    eprintln!("run folder: {}", start.folder.path().display());
    if args.resume.is_some() {
        let from = match &start.resume {
            Some(found) => format!("going on after step {}", found.state.step),
            None => "no checkpoint yet: starting from the beginning".into(),
        };
        eprintln!("{from}");
        tracing::info!("{from}");
    }
    let stop = StopSignal::install()?;
    let folder = start.folder.clone();
    let trained = devices.guard(|| crate::train::run(start, &devices, &stop));
    trained.map_err(|error| match error {
        RunError::Device { device, reason } => RunError::Device {
            device,
            reason: format!(
                "{reason}; the checkpoints are kept, go on with: blip2 train --resume {}",
                folder.path().display()
            ),
        },
        error => error,
    })?;
    if let (Some(estimated), Some(peak)) = (estimated, peak_memory()) {
        let mebibytes = |bytes: usize| bytes >> 20;
        eprintln!(
            "memory at the peak: {} MiB, estimated: {} MiB",
            mebibytes(peak),
            mebibytes(estimated)
        );
    }
    Ok(())
}

/// The default config in the current folder or one above it, or where this binary was built.
fn default_config() -> Result<PathBuf, RunError> {
    let here = std::env::current_dir().map_err(RunError::io("."))?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    here.ancestors()
        .chain(built)
        .map(|folder| folder.join(DEFAULT_CONFIG))
        .find(|config| config.is_file())
        .ok_or_else(|| {
            RunError::Usage(format!(
                "{DEFAULT_CONFIG} is not in this folder or above it; name a config with --config"
            ))
        })
}
