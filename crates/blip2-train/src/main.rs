//! The command line; see `blip2 --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    blip2_train::cli::main()
}
