//! `cargo xtask COMMAND`: builds `blip2` in release for the wanted backend and runs it; and the
//! project's own chores.

mod backend;
mod backends;
mod bench;
mod build;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND [--backend flex|cpu|vulkan|wgpu|cuda|metal|rocm] [--remote] [ARGUMENTS]

  train, caption, evaluate, score, convert, inspect, devices, data
            build blip2 in release for the backend (default flex) and run that command; with
            --remote (or a device ws://…) it knows devices of other machines
  serve-device
            compute for other machines
  test      all tests of the workspace
  bench     eval: scores against the reference's programs; features: the feature cache; model:
            time and memory against PyTorch with transformers
  backends  builds and tries each backend that this machine can build (or the one of --backend): parity
            with the references, a short training, a caption; prints a table
  ci        formatting, lints, documentation, all tests";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = match backend::take(&mut arguments) {
        Ok(wanted) => wanted,
        Err(message) => return usage(&message),
    };
    let backend = wanted.as_deref().unwrap_or("flex");
    match arguments.first().map(String::as_str) {
        None | Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Some("test") => test::test(&arguments[1..]),
        Some("ci") => test::ci(),
        Some("backends") => backends::backends(wanted.as_deref()),
        Some("bench") => bench::bench(backend, &arguments[1..]),
        Some(_) => build::run_blip2(backend, arguments),
    }
}

fn usage(message: &str) -> ExitCode {
    eprintln!("error: {message}\n\n{HELP}");
    ExitCode::from(2)
}
