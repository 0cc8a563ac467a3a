//! Errors of reading and writing data.

use std::path::PathBuf;

use thiserror::Error;

/// What can be wrong with data; every message names the file, and the field where there is one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that should be an image is none, or is cut off.
    #[error("{path}: not a readable image: {reason}", path = path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// An image's header asks for more pixels than allowed.
    #[error(
        "{path}: the header says {width}×{height} pixels, more than the limit of {limit}",
        path = path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// From the header.
        width: u32,
        /// From the header.
        height: u32,
        /// The most pixels allowed.
        limit: u64,
    },
    /// An annotation file is not what it should be.
    #[error("{file}: {field}: {reason}", file = file.display())]
    Annotation {
        /// The annotation file.
        file: PathBuf,
        /// The place in it, for example `annotations[3].caption` or `line 7`.
        field: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A file that says how images are prepared is broken, or asks for something else than this
    /// crate does.
    #[error("{file}: `{field}`: {reason}", file = file.display())]
    ProcessorFile {
        /// `preprocessor_config.json` or `processor_config.json`.
        file: PathBuf,
        /// The field, for example `image_processor.size`; `JSON` where the file is none.
        field: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A split without an image.
    #[error("{file}: the split `{split}` holds no image", file = file.display())]
    EmptySplit {
        /// The annotation file.
        file: PathBuf,
        /// The split's name.
        split: String,
    },
    /// Images to caption were named, and there is none.
    #[error("{path}: holds no image to caption: {reason}", path = path.display())]
    EmptyCollection {
        /// The folder, list or tar.
        path: PathBuf,
        /// What was looked for.
        reason: &'static str,
    },
    /// A tar shard, or a sample in it, can't be used.
    #[error("{shard}: {place}: {reason}", shard = shard.display())]
    Shard {
        /// The tar file.
        shard: PathBuf,
        /// The entry or the sample in it, or the byte.
        place: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A tar shard is not the one that the run began with, so its order can't go on.
    #[error(
        "{shard}: has changed: {what} was {was}, now it is {now}; put the old file back, or start a \
         new run",
        shard = shard.display()
    )]
    ShardChanged {
        /// The tar file.
        shard: PathBuf,
        /// Its size in bytes, or its number of samples.
        what: &'static str,
        /// When the run began.
        was: u64,
        /// Now.
        now: u64,
    },
    /// A field of a configuration is wrong.
    #[error("config field `{field}`: {reason}")]
    Config {
        /// The field.
        field: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The tokenizer can't be read, trained or used.
    #[error("tokenizer {path}: {reason}", path = path.display())]
    Tokenizer {
        /// Its file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The artwork lacks a drawing.
    #[error("the artwork has no drawing of {emoji}")]
    Artwork {
        /// The emoji.
        emoji: String,
    },
    /// An image can't be encoded.
    #[error("can't encode an image: {reason}")]
    Encode {
        /// What the encoder said.
        reason: String,
    },
    /// A folder that would be overwritten holds something else.
    #[error(
        "{folder} holds something that is not emoji-scenes; choose an empty folder",
        folder = folder.display()
    )]
    NotEmoji {
        /// The folder.
        folder: PathBuf,
    },
}

impl DataError {
    /// Whether it is about one image or one sample, which can be left out.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Io { .. } | Self::Image { .. } | Self::TooLarge { .. } | Self::Shard { .. }
        )
    }

    /// An [`Io`](Self::Io) error of `path`, for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
