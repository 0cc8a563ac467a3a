//! The command line `blip2`: results to stdout, everything else to stderr, exit codes 0, 1, 2, 130.

mod adapter;
mod caption;
mod caption_set;
mod convert;
mod data;
mod devices;
mod evaluate;
mod features;
mod generation;
mod inspect;
mod inspect_plan;
mod logging;
mod matching;
mod metrics;
mod model;
mod retrieval;
mod score;
#[cfg(feature = "remote")]
mod serve_device;
mod stage1;
mod train;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use blip2::checkpoint::Progress;
use burn::tensor::Device;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::RunError;
use crate::devices::Devices;

/// Train, evaluate and run BLIP-2 image captioners.
#[derive(Debug, Parser)]
#[command(name = "blip2", version, about, long_about = None)]
struct Cli {
    /// Where to compute: BACKEND, BACKEND:INDEX, INDEX, or ws://HOST:PORT of a `blip2 serve-device`; without
    /// it the first device of the backend that this binary was built for. `train` takes several, with commas
    /// between them.
    #[arg(long, global = true, value_name = "DEVICE")]
    device: Option<String>,
    /// Runs what is estimated not to fit in memory, too.
    #[arg(long, global = true)]
    ignore_memory: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train from a config, or go on with a run.
    Train(train::Args),
    /// Caption images.
    Caption(caption::Args),
    /// Loss and COCO scores, or recalls of retrieval, of a model on annotated images.
    Evaluate(evaluate::Args),
    /// What a model of stage 1 makes of images and texts, for search.
    Features(features::Args),
    /// How well images and texts go together, by a model of stage 1.
    Match(matching::Args),
    /// COCO scores of a result file against an annotation file.
    Score(score::Args),
    /// Change a checkpoint's layout and precision, and verify the result.
    Convert(convert::Args),
    /// Parameters of a model or config, part by part, and the account of a checkpoint's keys.
    Inspect(inspect::Args),
    /// The devices of this machine, by the words that --device takes.
    Devices,
    /// Compute for other machines: they name this one with `--device ws://HOST:PORT`.
    ///
    /// Nothing that crosses the network is encrypted. Clients must show the secret in the environment
    /// variable BLIP2_DEVICE_SECRET, if the server was started with one: that keeps strangers out of a
    /// network that is trusted otherwise, and is no protection against whoever can read the traffic.
    /// Across any other network, listen on 127.0.0.1 and use a tunnel: ssh -L 3000:127.0.0.1:3000 SERVER.
    #[cfg(feature = "remote")]
    ServeDevice(serve_device::Args),
    /// Write a built-in data set.
    #[command(subcommand)]
    Data(data::Command),
}

/// Reads the command line, does the work, gives the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with code 0, mistakes to stderr with code 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    logging::install();
    crate::out_of_memory::install();
    // Parallel work that begins outside of rayon's pool is handed to it by way of the system, some
    // thousand times a second in training; inside, it begins at once.
    let result = match rayon::ThreadPoolBuilder::new().build() {
        Ok(pool) => pool.install(|| run(cli)),
        Err(_) => run(cli),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<(), RunError> {
    let ignore = cli.ignore_memory;
    let device = cli.device.as_deref();
    match cli.command {
        Command::Train(args) => train::run(args, device, ignore),
        Command::Caption(args) => on(device, |device| caption::run(args, device, ignore)),
        Command::Evaluate(args) => on(device, |device| evaluate::run(args, device, ignore)),
        Command::Features(args) => on(device, |device| features::run(args, device)),
        Command::Match(args) => on(device, |device| matching::run(args, device)),
        Command::Score(args) => score::run(args),
        Command::Convert(args) => on(device, |device| convert::run(args, device)),
        Command::Inspect(args) => on(device, |device| inspect::run(args, device)),
        Command::Devices => devices::run(),
        #[cfg(feature = "remote")]
        Command::ServeDevice(args) => serve_device::run(&args, device),
        Command::Data(command) => data::run(command),
    }
}

/// Does `work` on the one device that `--device` names.
fn on(
    device: Option<&str>,
    work: impl FnOnce(&Device) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let devices = Devices::open(&device.map(Devices::words).unwrap_or_default())?;
    let device = devices.only()?;
    devices.guard(|| work(device))
}

/// A progress bar on stderr: drawn on a terminal, a line now and then in a pipe would only be noise.
pub(crate) fn bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    bar.set_draw_target(if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    });
    if let Ok(style) =
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec} ETA {eta}")
    {
        bar.set_style(style);
    }
    bar.set_message(what.to_string());
    bar
}

/// A bar of bytes on stderr.
pub(crate) fn bytes_bar(what: &str) -> Progress {
    let bar = bar(what);
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    Arc::new(move |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
        }
    })
}

/// Writes a line of results; a closed pipe (`| head`) is no error.
pub(crate) fn result_line(line: &str) -> Result<(), RunError> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(RunError::io("stdout")),
    }
}

/// Compact JSON.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<String, RunError> {
    serde_json::to_string(value).map_err(|error| RunError::io("stdout")(error.into()))
}
