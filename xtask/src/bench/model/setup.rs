//! What the comparison needs: our worker, a model of the shape, images, PyTorch.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{python_with, run};
use crate::build::{build_blip2, cargo, root, tuned};
use crate::test::photographs;

/// What PyTorch's side needs from PyPI.
const PACKAGES: [&str; 3] = ["torch", "transformers>=5", "pillow"];
/// Files that are preprocessed at once.
const IMAGES: usize = 32;

/// One of the programs that are compared.
#[derive(Debug, Clone)]
pub struct Side {
    /// Its column.
    pub name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Side {
    /// The command that starts it.
    pub fn command(&self) -> Command {
        // Both sides: PyTorch's numbers are not worse for it.
        let mut command = tuned(&self.program);
        command.args(&self.arguments);
        command
    }
}

/// Everything that is there to be compared.
pub struct Setup {
    /// Ours first.
    pub sides: Vec<Side>,
    /// A folder of photographs, or of drawings where there are none.
    pub images: PathBuf,
}

impl Setup {
    /// Builds and makes what is missing. Without Python or a registry, our side stands alone.
    pub fn new(backend: &str, shape: &str) -> Result<Self, String> {
        let config = root().join(format!("xtask/bench/{shape}.toml"));
        if !config.is_file() {
            return Err(format!(
                "there is no shape `{shape}`; known are small and base"
            ));
        }
        let blip2 = build_blip2(backend, false)?;
        let worker = build_worker(backend)?;
        let model = make_model(&blip2, &config, shape)?;
        let images = make_images()?;
        let side = |name, program: &Path, arguments: &[&str]| Side {
            name,
            program: program.to_path_buf(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
        };
        let folder = model.display().to_string();
        let mut sides = vec![
            side("blip2 f32", &worker, &[&folder, "f32"]),
            side("blip2 bf16", &worker, &[&folder, "bf16"]),
        ];
        match python_with("bench-torch", &PACKAGES, "import torch, transformers, PIL") {
            Err(message) => eprintln!("note: {message}; our side is measured alone"),
            Ok(python) => {
                let script = root()
                    .join("tests/reference/bench.py")
                    .display()
                    .to_string();
                for (name, options) in [
                    ("torch f32", &["f32"][..]),
                    ("torch bf16", &["bf16"]),
                    ("torch compile", &["f32", "compile"]),
                ] {
                    let mut arguments = vec![script.as_str(), folder.as_str()];
                    arguments.extend(options);
                    sides.push(side(name, &python, &arguments));
                }
            }
        }
        Ok(Self { sides, images })
    }
}

fn build_worker(backend: &str) -> Result<PathBuf, String> {
    let mut build = cargo();
    build
        .args(["build", "--release", "--package", "blip2-train"])
        .args(["--example", "bench_worker"])
        .args(["--no-default-features", "--features"])
        .arg(format!("{backend},hub"));
    run(&mut build, "building the worker")?;
    Ok(root().join("target/release/examples/bench_worker"))
}

/// A model with random weights in the Hugging Face layout, after one step of training.
fn make_model(blip2: &Path, config: &Path, shape: &str) -> Result<PathBuf, String> {
    let folder = root().join("target/bench-model");
    let (run_folder, model) = (folder.join(format!("{shape}-run")), folder.join(shape));
    if model.join("tokenizer.json").is_file() {
        return Ok(model);
    }
    for stale in [&run_folder, &model] {
        if stale.exists() {
            std::fs::remove_dir_all(stale).map_err(|error| error.to_string())?;
        }
    }
    let mut train = Command::new(blip2);
    train.args(["train", "--config"]).arg(config);
    train.arg("--out").arg(&run_folder);
    for set in [
        "data.test=[]",
        "data.val.limit=8",
        "data.train.limit=8",
        "train.epochs=1",
    ] {
        train.args(["--set", set]);
    }
    run(train.stdout(std::process::Stdio::null()), "making a model")?;
    let mut convert = Command::new(blip2);
    convert.args(["convert", "--format", "huggingface", "--from"]);
    convert.arg(&run_folder).arg("--to").arg(&model);
    run(
        convert.stdout(std::process::Stdio::null()),
        "converting the model",
    )?;
    Ok(model)
}

fn make_images() -> Result<PathBuf, String> {
    let folder = root().join("target/bench-model/images");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let from = match photographs() {
        true => root().join("tests/photographs"),
        false => root().join("datasets/emoji-scenes/images"),
    };
    let entries =
        std::fs::read_dir(&from).map_err(|error| format!("{}: {error}", from.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|end| end == "jpg" || end == "png")
    });
    files.sort();
    for (index, path) in files.iter().cycle().take(IMAGES).enumerate() {
        let end = path.extension().unwrap_or_default().to_string_lossy();
        let copy = folder.join(format!("{index:03}.{end}"));
        std::fs::copy(path, copy).map_err(|error| error.to_string())?;
    }
    Ok(folder)
}
