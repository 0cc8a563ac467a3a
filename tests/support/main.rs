//! `blip2`, for the tests of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    blip2_train::cli::main()
}
