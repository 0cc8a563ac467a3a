//! Captions as a Parquet file: a row a caption.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde::Deserialize;

use super::CaptioningError;
use super::files::with;
use super::journal::each_line;
use crate::RunError;

const SCHEMA: &str = "
    message captions {
        required binary image (string);
        required int32 rank;
        required binary caption (string);
        required double score;
        required group token_ids (list) {
            repeated group list {
                required int32 element;
            }
        }
    }";

/// Rows that are in memory at once.
const GROUP_ROWS: usize = 1 << 16;

#[derive(Deserialize)]
struct Line {
    image: String,
    captions: Vec<Caption>,
}

#[derive(Deserialize)]
struct Caption {
    caption: String,
    token_ids: Vec<i32>,
    /// JSON has no word for what is not finite.
    score: Option<f64>,
}

/// Makes the file `table` of the lines in `lines`; it appears whole or not at all.
pub(super) fn write(lines: &Path, table: &Path) -> std::result::Result<(), RunError> {
    let temporary = with(table, ".tmp");
    let failed = |error: ParquetError| CaptioningError::Parquet {
        file: temporary.clone(),
        reason: error.to_string(),
    };
    let file = File::create(&temporary).map_err(RunError::io(&temporary))?;
    let mut writer = writer(file).map_err(failed)?;
    let mut group = Group::default();
    let input = File::open(lines).map_err(RunError::io(lines))?;
    each_line(&input, lines, |_, line: Line| {
        group.add(line);
        match group.rank.len() < GROUP_ROWS {
            true => Ok(()),
            false => std::mem::take(&mut group)
                .write(&mut writer)
                .map_err(failed),
        }
    })?;
    if !group.rank.is_empty() {
        group.write(&mut writer).map_err(failed)?;
    }
    writer.finish().map_err(failed)?;
    let synced = writer.inner().sync_all();
    synced.map_err(RunError::io(&temporary))?;
    fs::rename(&temporary, table).map_err(RunError::io(table))
}

fn writer(file: File) -> Result<SerializedFileWriter<File>> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let program = concat!("blip2 ", env!("CARGO_PKG_VERSION")).to_string();
    let properties = WriterProperties::builder().set_created_by(program).build();
    SerializedFileWriter::new(file, schema, Arc::new(properties))
}

/// The columns of some rows.
#[derive(Default)]
struct Group {
    image: Vec<ByteArray>,
    rank: Vec<i32>,
    caption: Vec<ByteArray>,
    score: Vec<f64>,
    token_ids: Vec<i32>,
    /// For each token id, or empty list: 1 or 0.
    definition: Vec<i16>,
    /// For each token id, or empty list: 0 where a row begins, else 1.
    repetition: Vec<i16>,
}

impl Group {
    fn add(&mut self, line: Line) {
        let image = ByteArray::from(line.image.into_bytes());
        for (rank, caption) in (0..).zip(line.captions) {
            self.image.push(image.clone());
            self.rank.push(rank);
            self.caption
                .push(ByteArray::from(caption.caption.into_bytes()));
            self.score.push(caption.score.unwrap_or(f64::NAN));
            let ids = caption.token_ids;
            self.definition.push(i16::from(!ids.is_empty()));
            self.repetition.push(0);
            for _ in ids.iter().skip(1) {
                self.definition.push(1);
                self.repetition.push(1);
            }
            self.token_ids.extend(ids);
        }
    }

    fn write(self, writer: &mut SerializedFileWriter<File>) -> Result<()> {
        let mut group = writer.next_row_group()?;
        column::<ByteArrayType>(&mut group, &self.image, None)?;
        column::<Int32Type>(&mut group, &self.rank, None)?;
        column::<ByteArrayType>(&mut group, &self.caption, None)?;
        column::<DoubleType>(&mut group, &self.score, None)?;
        let levels = Some((&*self.definition, &*self.repetition));
        column::<Int32Type>(&mut group, &self.token_ids, levels)?;
        group.close()?;
        Ok(())
    }
}

/// Writes the next column of `group`.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<File>,
    values: &[T::T],
    levels: Option<(&[i16], &[i16])>,
) -> Result<()> {
    let more = || ParquetError::General("more columns than the schema has".into());
    let mut column = group.next_column()?.ok_or_else(more)?;
    let (definition, repetition) = levels.unzip();
    column
        .typed::<T>()
        .write_batch(values, definition, repetition)?;
    column.close()
}
