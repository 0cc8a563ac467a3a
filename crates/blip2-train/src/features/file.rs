//! The cache's file: safetensors, so that any tool reads it.
//!
//! `image_embeds` is `[images, views, image_tokens, vision_width]`; `kept` has a 1 for each image
//! that could be read. The metadata say what the embeddings were made of; see [`Origin`].

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;
use serde_json::json;

use super::FeatureDType;
use crate::RunError;

const EMBEDS: &str = "image_embeds";
const KEPT: &str = "kept";

/// Everything that decides the values of a cache, as SHA-256 in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The weights and dimensions of the image encoder.
    pub vision_backbone: String,
    /// Preprocessing, augmentation with its seed, views.
    pub transforms: String,
    /// The images, in order.
    pub images: String,
}

impl Origin {
    /// The fields with the words of error messages.
    fn fields(&self) -> [(&'static str, &'static str, &str); 3] {
        [
            (
                "vision_backbone",
                "another image encoder",
                &self.vision_backbone,
            ),
            ("transforms", "other transforms", &self.transforms),
            ("images", "other images", &self.images),
        ]
    }

    /// `train-1f2e….safetensors`: tower and transforms are in the name, so that runs which differ
    /// in them never meet.
    pub fn file_name(&self, split: &str, dtype: FeatureDType) -> String {
        let both =
            crate::hash::sha256(format!("{} {}", self.vision_backbone, self.transforms).as_bytes());
        format!(
            "{split}-{}-{}.safetensors",
            &both[..16],
            dtype.word().to_lowercase()
        )
    }
}

/// The dimensions of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Images of the split.
    pub images: usize,
    /// Views of each.
    pub views: usize,
    /// Tokens of the image encoder, CLS included.
    pub tokens: usize,
    /// Its width.
    pub width: usize,
    /// The precision.
    pub dtype: FeatureDType,
}

impl Layout {
    /// Bytes of one view of one image.
    pub fn row_len(&self) -> usize {
        self.tokens * self.width * self.dtype.dtype().size()
    }

    fn shape(&self) -> [usize; 4] {
        [self.images, self.views, self.tokens, self.width]
    }

    fn embeds_len(&self) -> usize {
        self.images * self.views * self.row_len()
    }
}

/// A file under way; it gets its name when it is whole.
pub(super) struct FeatureWriter {
    path: PathBuf,
    temporary: PathBuf,
    writer: BufWriter<File>,
}

impl FeatureWriter {
    pub fn create(path: &Path, layout: &Layout, origin: &Origin) -> Result<Self, RunError> {
        let mut metadata = serde_json::Map::new();
        for (key, _, value) in origin.fields() {
            metadata.insert(key.into(), value.into());
        }
        let end = layout.embeds_len();
        let header = json!({
            "__metadata__": metadata,
            EMBEDS: {"dtype": layout.dtype.word(), "shape": layout.shape(), "data_offsets": [0, end]},
            KEPT: {"dtype": "U8", "shape": [layout.images], "data_offsets": [end, end + layout.images]},
        });
        let mut header = header.to_string();
        // The data begin at a multiple of eight.
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let file = File::create(&temporary).map_err(RunError::io(&temporary))?;
        let mut this = Self {
            path: path.to_path_buf(),
            temporary,
            writer: BufWriter::new(file),
        };
        this.write(&(header.len() as u64).to_le_bytes())?;
        this.write(header.as_bytes())?;
        Ok(this)
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        self.writer
            .write_all(bytes)
            .map_err(RunError::io(&self.temporary))
    }

    /// Ends the file and gives it its name.
    pub fn finish(mut self, kept: &[u8]) -> Result<(), RunError> {
        self.write(kept)?;
        let io = RunError::io(self.temporary.clone());
        self.writer
            .flush()
            .and_then(|()| self.writer.get_ref().sync_all())
            .map_err(io)?;
        fs::rename(&self.temporary, &self.path).map_err(RunError::io(&self.path))
    }
}

impl Drop for FeatureWriter {
    fn drop(&mut self) {
        // Gone if the file was finished; half a cache is of no use.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Opens `path` if it holds `layout` of `origin`: the file, where its rows begin, and which images
/// were kept.
pub(super) fn open(
    path: &Path,
    layout: &Layout,
    origin: &Origin,
) -> Result<(File, u64, Vec<bool>), RunError> {
    let wrong = |reason: String| RunError::Features {
        path: path.to_path_buf(),
        reason,
    };
    let io = |error| RunError::io(path)(error);
    let mut file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let mut header_len = [0; 8];
    file.read_exact(&mut header_len)
        .map_err(|_| wrong("has no header".into()))?;
    let header_len = u64::from_le_bytes(header_len);
    if header_len > len {
        return Err(wrong("is cut off or no feature cache".into()));
    }
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| wrong(format!("has a broken header: {error}")))?;
    let found = metadata.metadata().clone().unwrap_or_default();
    for (key, words, value) in origin.fields() {
        if found.get(key).map(String::as_str) != Some(value) {
            return Err(wrong(format!("was made with {words} than this run's")));
        }
    }
    let embeds = metadata.info(EMBEDS);
    if embeds.is_none_or(|info| info.shape != layout.shape()) {
        return Err(wrong(format!("`{EMBEDS}` is not {:?}", layout.shape())));
    }
    let start = 8 + header_len;
    if len != start + (layout.embeds_len() + layout.images) as u64 {
        return Err(wrong("is cut off".into()));
    }
    let mut kept = vec![0; layout.images];
    file.seek(SeekFrom::Start(start + layout.embeds_len() as u64))
        .and_then(|_| file.read_exact(&mut kept))
        .map_err(io)?;
    Ok((file, start, kept.iter().map(|&kept| kept == 1).collect()))
}
