//! `blip2 devices`: a line a device, with its name and the precisions that it computes in.

use super::result_line;
use crate::RunError;
use crate::device::{BACKENDS, list, name, precisions, probe};

pub(super) fn run() -> Result<(), RunError> {
    for backend in BACKENDS {
        let devices = list(backend)?;
        if devices.is_empty() {
            eprintln!("{backend}: no device here");
        }
        for (index, device) in devices.iter().enumerate() {
            let line = match probe(backend, index, device) {
                Ok(()) => format!(
                    "{backend}:{index}\t{}\t{}",
                    name(device),
                    precisions(device).join(" ")
                ),
                Err(error) => {
                    eprintln!("{error}");
                    continue;
                }
            };
            result_line(&line)?;
        }
    }
    Ok(())
}
