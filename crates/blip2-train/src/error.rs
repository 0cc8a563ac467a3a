//! Errors of runs, and the exit code of each.

use std::path::PathBuf;

use blip2::Blip2Error;
use blip2_data::DataError;
use blip2_eval::EvalError;
use thiserror::Error;

use crate::captioning::CaptioningError;
use crate::plan::preflight::Shortage;
use crate::run::RunFolder;

/// Why a command did not do its work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The command line or a config is wrong.
    #[error("{0}")]
    Usage(String),
    /// A config file or one of its fields is wrong.
    #[error("{file}: {reason}", file = file.display())]
    Config {
        /// The config file.
        file: PathBuf,
        /// The field, what is wrong, what to do.
        reason: String,
    },
    /// The model can't be made, loaded or run.
    #[error(transparent)]
    Model(#[from] Blip2Error),
    /// A model does not come from the hub.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] blip2::hub::HubError),
    /// What was named is no file or folder here, and does not come from the hub either.
    #[cfg(feature = "hub")]
    #[error("{name} is no file or folder; as a model of the hub: {source}")]
    NoPathNorHub {
        /// What was named.
        name: String,
        /// Why the hub did not give it.
        source: blip2::hub::HubError,
    },
    /// Images, annotations or the tokenizer can't be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Captions can't be scored.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The captions of two files do not belong together.
    #[error("{file}: {source}", file = file.display())]
    Captions {
        /// The file with too many or too few.
        file: PathBuf,
        /// Which images.
        source: EvalError,
    },
    /// A file can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The files of a captioning task can't be used.
    #[error(transparent)]
    Captioning(#[from] CaptioningError),
    /// A checkpoint can't be used.
    #[error("checkpoint {path}: {reason}", path = path.display())]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A feature cache can't be used.
    #[error("{path}: {reason}; delete it, or set another `features.folder`", path = path.display())]
    Features {
        /// The cache.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What is asked for takes more memory than there is.
    #[error("{0}")]
    Memory(Box<Shortage>),
    /// There is no such device, or it can't be used.
    #[error("device {device}: {reason}")]
    Device {
        /// The word that named it.
        device: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Training stopped by itself.
    #[error("training stopped: {0}")]
    Training(String),
    /// The user or the system asked to stop; the state is saved.
    #[error("interrupted{}", .resume.as_ref().map(|run| format!("; go on with: blip2 train --resume {}", run.display())).unwrap_or_default())]
    Interrupted {
        /// The run folder to resume, if there is one.
        resume: Option<PathBuf>,
    },
}

impl RunError {
    /// An [`Io`](Self::Io) error of `path`, for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Says of an interruption that the run in `folder` can go on.
    pub fn resumable(self, folder: &RunFolder) -> Self {
        match self {
            Self::Interrupted { .. } => Self::Interrupted {
                resume: Some(folder.path().to_path_buf()),
            },
            error => error,
        }
    }

    /// 2 for a wrong command line or config, 130 for an interruption, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config { .. } | Self::Data(DataError::Config { .. }) => 2,
            Self::Model(
                Blip2Error::Config { .. } | Blip2Error::Vision(_) | Blip2Error::QFormer(_),
            ) => 2,
            Self::Captioning(error) if error.is_usage() => 2,
            Self::Interrupted { .. } => 130,
            _ => 1,
        }
    }
}
