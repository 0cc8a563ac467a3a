//! Embeddings by image and view, from memory or from a file.

use std::fs::File;
use std::path::PathBuf;

use blip2_data::DataError;
use blip2_data::images::{ImageInput, ImageSource, Look};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use super::file::Layout;

/// The embeddings of a split, in the place of its images.
#[derive(Debug)]
pub struct FeatureStore {
    layout: Layout,
    rows: Rows,
    kept: Vec<bool>,
}

/// Files are read at positions rather than memory-mapped: the system keeps what is read often in
/// memory in both cases, but a mapped file that is cut, or whose disk fails, ends the process.
#[derive(Debug)]
pub(super) enum Rows {
    Memory(Vec<u8>),
    File {
        path: PathBuf,
        file: File,
        start: u64,
    },
}

impl FeatureStore {
    pub(super) fn new(layout: Layout, rows: Rows, kept: Vec<bool>) -> Self {
        Self { layout, rows, kept }
    }

    /// Appends one view of one image to `bytes`.
    fn read_row(&self, look: &Look, bytes: &mut Vec<u8>) -> Result<(), DataError> {
        let len = self.layout.row_len();
        let at = (look.sample * self.layout.views + look.view) * len;
        match &self.rows {
            Rows::Memory(rows) => bytes.extend_from_slice(&rows[at..at + len]),
            Rows::File { path, file, start } => {
                let filled = bytes.len();
                bytes.resize(filled + len, 0);
                read_at(file, &mut bytes[filled..], start + at as u64).map_err(|source| {
                    DataError::Io {
                        path: path.clone(),
                        source,
                    }
                })?;
            }
        }
        Ok(())
    }
}

/// Fills `bytes` from position `at` of `file`; several threads may do so at once.
#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

/// As above.
#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, at)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                at += read as u64;
            }
        }
    }
    Ok(())
}

impl ImageSource for FeatureStore {
    fn read(&self, looks: &[Look], device: &Device) -> Result<(ImageInput, Vec<usize>), DataError> {
        let kept: Vec<usize> = (0..looks.len())
            .filter(|&row| self.kept[looks[row].sample])
            .collect();
        if kept.is_empty() {
            // As with pixels, a batch of nothing is no batch.
            return Err(DataError::Config {
                field: "data.on_error".into(),
                reason: "no image of a whole batch could be read when its features were computed"
                    .into(),
            });
        }
        let mut bytes = Vec::with_capacity(kept.len() * self.layout.row_len());
        for &row in &kept {
            self.read_row(&looks[row], &mut bytes)?;
        }
        let Layout {
            tokens,
            width,
            dtype,
            ..
        } = self.layout;
        let data = TensorData::from_bytes_vec(bytes, [kept.len(), tokens, width], dtype.dtype());
        let embeds = Tensor::<3>::from_data(data, (device, FloatDType::F32.into()));
        Ok((ImageInput::Embeds(embeds), kept))
    }
}
