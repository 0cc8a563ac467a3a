//! `cargo xtask COMMAND`: builds `blip2` in release for the wanted backend and runs it; and the
//! project's own chores.

mod backend;
mod bench;
mod build;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND [--backend flex|cpu|vulkan|wgpu|cuda|metal|rocm] [--remote] [ARGUMENTS]

  train, caption, evaluate, score, convert, inspect, data
            build blip2 in release for the backend (default flex) and run that command; with
            --remote (or a device ws://…) it knows devices of other machines
  serve-device
            compute for other machines
  test      all tests of the workspace
  bench     eval: scores against the reference's programs; features: the feature cache; model:
            time and memory against PyTorch with transformers
  ci        formatting, lints, documentation, all tests";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let backend = match backend::take(&mut arguments) {
        Ok(backend) => backend,
        Err(message) => return usage(&message),
    };
    match arguments.first().map(String::as_str) {
        None | Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Some("test") => test::test(&arguments[1..]),
        Some("ci") => test::ci(),
        Some("bench") => bench::bench(&backend, &arguments[1..]),
        Some(_) => build::run_blip2(&backend, arguments),
    }
}

fn usage(message: &str) -> ExitCode {
    eprintln!("error: {message}\n\n{HELP}");
    ExitCode::from(2)
}
