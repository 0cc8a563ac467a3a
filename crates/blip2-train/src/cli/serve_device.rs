//! `blip2 serve-device`.

use std::io::Write;

use super::result_line;
use crate::RunError;
use crate::devices::Devices;
use crate::remote;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The address to listen on; port 0 takes a free one. Addresses that other machines can reach need a
    /// secret.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3000")]
    listen: String,
}

/// Prints a line for each device, `ws://HOST:PORT` or `ws://HOST:PORT/INDEX`, then computes until it is
/// stopped.
pub(super) fn run(args: &Args, device: Option<&str>) -> Result<(), RunError> {
    let devices = Devices::open(&device.map(Devices::words).unwrap_or_default())?;
    if let Some(remote) = devices.all().iter().find(|one| one.is_remote()) {
        return Err(RunError::Usage(format!(
            "--device {}: a server computes on devices of its own machine",
            remote.word
        )));
    }
    let served: Vec<_> = devices.all().iter().map(|one| one.device.clone()).collect();
    remote::serve(&served, &args.listen, |words| {
        for word in words {
            result_line(word)?;
        }
        // Whoever started this may wait for the port.
        std::io::stdout().flush().map_err(RunError::io("stdout"))
    })
}
