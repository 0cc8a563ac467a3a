//! The run folder: where everything that a run leaves behind lies.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::RunError;

/// What makes a folder a run folder: its recipe.
const CONFIG: &str = "config.toml";

/// A run folder; the README shows its layout.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes a new run folder and proves that it can be written.
    ///
    /// # Errors
    ///
    /// If it exists with a run inside, or can't be written.
    pub fn create(path: &Path) -> Result<Self, RunError> {
        let path = std::path::absolute(path).map_err(RunError::io(path))?;
        let folder = Self { path };
        if folder.config().exists() {
            return Err(RunError::Usage(format!(
                "{} already holds a run; resume it with `--resume`, or choose another `--out`",
                folder.path.display()
            )));
        }
        fs::create_dir_all(folder.checkpoints()).map_err(RunError::io(folder.path()))?;
        fs::create_dir_all(folder.path.join("captions")).map_err(RunError::io(folder.path()))?;
        Ok(folder)
    }

    /// Opens the run folder that `path` is.
    ///
    /// # Errors
    ///
    /// If there is no `config.toml` in it.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let path = std::path::absolute(path).map_err(RunError::io(path))?;
        let folder = Self { path };
        if !Self::is_at(&folder.path) {
            return Err(RunError::Usage(format!(
                "{} is no run folder: it has no config.toml",
                folder.path.display()
            )));
        }
        Ok(folder)
    }

    /// Whether `path` is a run folder.
    pub fn is_at(path: &Path) -> bool {
        path.join(CONFIG).is_file()
    }

    /// The first of `runs/NAME`, `runs/NAME-2`, … that is free.
    pub fn free_name(name: &str) -> PathBuf {
        let first = Path::new("runs").join(name);
        let numbered = (2..).map(|number| Path::new("runs").join(format!("{name}-{number}")));
        std::iter::once(first)
            .chain(numbered)
            .find(|path| !path.exists())
            .expect("the numbers do not end")
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The complete recipe, as resolved.
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// One JSON object a line, for each step and evaluation.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// One folder a checkpoint.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// The run's own feature caches.
    pub fn features(&self) -> PathBuf {
        self.path.join("features")
    }

    /// How many samples each shard of a stream holds.
    pub fn shards(&self) -> PathBuf {
        self.path.join("shards.jsonl")
    }

    /// The test scores.
    pub fn scores(&self) -> PathBuf {
        self.path.join("scores.json")
    }

    /// Generated captions in the COCO result format.
    pub fn captions(&self, name: &str) -> PathBuf {
        self.path.join("captions").join(format!("{name}.json"))
    }

    /// The report.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// What the program logged.
    pub fn log(&self) -> PathBuf {
        self.path.join("log.txt")
    }
}

/// Writes `contents` to `path` so that it appears whole or not at all, even if power fails.
///
/// # Errors
///
/// If it can't be written.
pub fn write_atomic(path: &Path, contents: &[u8]) -> Result<(), RunError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(RunError::io(path))
}

/// Writes `value` as readable JSON, whole or not at all.
///
/// # Errors
///
/// If it can't be written.
pub fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), RunError> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| RunError::io(path)(error.into()))?;
    write_atomic(path, (text + "\n").as_bytes())
}
