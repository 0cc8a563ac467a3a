//! Errors of the assembled model and its checkpoints.

use std::path::PathBuf;

use thiserror::Error;

/// What can go wrong when a captioner is made, loaded or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Blip2Error {
    /// A field of the configuration is wrong.
    #[error("config field `{field}`: {reason}")]
    Config {
        /// The dotted path of the field.
        field: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The image encoder's configuration is impossible.
    #[error("vision_backbone: {0}")]
    Vision(#[from] blip2_vision::VisionError),
    /// The Q-Former's configuration is impossible.
    #[error("multimodal_backbone: {0}")]
    QFormer(#[from] blip2_qformer::QFormerError),
    /// The language model's configuration is impossible, or generation failed.
    #[error("text_backbone: {0}")]
    Lm(#[from] blip2_lm::LmError),
    /// The tokenizer, an image or an annotation can't be read.
    #[error(transparent)]
    Data(#[from] blip2_data::DataError),
    /// A file can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The weights of a file do not fit the module.
    #[error("{path}: {reason}", path = path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The keys: missing, unexpected, or of another shape.
        reason: String,
    },
    /// A sample lacks what the call needs.
    #[error("sample `{image_id}`: {reason}")]
    Sample {
        /// The image's id.
        image_id: String,
        /// What is missing.
        reason: String,
    },
}

impl Blip2Error {
    /// An [`Io`](Self::Io) error of `path`, for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
