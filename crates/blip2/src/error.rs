//! Errors of the assembled model and its checkpoints.

use std::path::PathBuf;

use thiserror::Error;

use crate::checkpoint::shortened;

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
    /// Tensors that the model needs and no file has.
    #[error(
        "{path}: missing: {keys}; if this checkpoint holds only what was trained, name the model \
         that it was trained from as base",
        path = path.display(),
        keys = shortened(keys)
    )]
    Missing {
        /// The file, or the index of its shards.
        path: PathBuf,
        /// The keys, as the file would have them.
        keys: Vec<String>,
    },
    /// Keys that belong to no tensor of the model.
    #[error(
        "{path}: unexpected: {keys}: these belong to another architecture than the config says",
        path = path.display(),
        keys = shortened(keys)
    )]
    Unexpected {
        /// The file, or the index of its shards.
        path: PathBuf,
        /// The keys.
        keys: Vec<String>,
    },
    /// A tensor has another shape than the config says.
    #[error("{path}: `{key}`: expected shape {expected:?}, found {found:?}", path = path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor's key.
        key: String,
        /// The shape that the config asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A weight is not made of floating-point numbers.
    #[error("{path}: `{key}`: expected F32, F16 or BF16, found {found}", path = path.display())]
    DType {
        /// The file.
        path: PathBuf,
        /// The tensor's key.
        key: String,
        /// The element type in the file.
        found: String,
    },
    /// A weight holds NaN or infinity.
    #[error(
        "{path}: `{key}`: expected finite numbers, found {count} that are NaN or infinite: the \
         training that wrote it had failed, or the file is corrupt",
        path = path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's key.
        key: String,
        /// How many.
        count: usize,
    },
    /// A config that describes another kind of model.
    #[error("{path}: `{field}`: expected `{expected}`, found `{found}`", path = path.display())]
    ModelType {
        /// The config file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What this crate can load.
        expected: &'static str,
        /// What the file says.
        found: String,
    },
    /// A pickle that would run a program.
    #[error(
        "{path}: calls `{callable}` when it is unpickled: this is an attack and no checkpoint. \
         Nothing of it was run; delete it",
        path = path.display()
    )]
    Hostile {
        /// The file.
        path: PathBuf,
        /// The function.
        callable: String,
    },
    /// A tokenizer that makes ids which the language model does not embed.
    #[error(
        "{path}: its largest token id is {largest}, but the language model embeds only {rows} \
         tokens: it belongs to another model",
        path = path.display()
    )]
    Vocabulary {
        /// The tokenizer.
        path: PathBuf,
        /// The largest id.
        largest: u32,
        /// Rows of the embedding.
        rows: usize,
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
