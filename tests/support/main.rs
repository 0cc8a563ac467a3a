//! `blip2`, for the tests of this package.

use std::process::ExitCode;

/// One line where there is no more memory, in the place of an abort.
#[global_allocator]
static ALLOCATOR: blip2_train::out_of_memory::Allocator = blip2_train::out_of_memory::Allocator;

fn main() -> ExitCode {
    blip2_train::cli::main()
}
