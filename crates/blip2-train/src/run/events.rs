//! TensorBoard's event files: scalars of every step and validation.
//!
//! No kept crate writes them without a protobuf compiler, and the part that is needed is small: a
//! record is its length, its bytes and two masked CRC-32C; an event is a message of four fields.
//! Format: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Record;

/// One event file.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Begins a file in `folder`. What earlier files say of steps after `step` no longer counts.
    ///
    /// # Errors
    ///
    /// If it can't be written.
    pub fn create(folder: &Path, step: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let (now, process) = (now(), std::process::id());
        let name = format!("events.out.tfevents.{now:.0}.blip2.{process}");
        let mut this = Self {
            file: File::create(folder.join(name))?,
        };
        this.event(0, |event| text(event, 3, b"brain.Event:2"))?;
        // `session_log { status: START }` removes what a run that was cut off wrote beyond.
        this.event(step + 1, |event| {
            let mut log = Vec::new();
            number(&mut log, 1, 1);
            text(event, 7, &log);
        })?;
        Ok(this)
    }

    /// Writes the numbers of `record`.
    ///
    /// # Errors
    ///
    /// If it can't be written.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let (step, scalars) = scalars(record);
        if scalars.is_empty() {
            return Ok(());
        }
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut entry = Vec::new();
            text(&mut entry, 1, tag.as_bytes());
            key(&mut entry, 2, 5);
            entry.extend((value as f32).to_le_bytes());
            text(&mut summary, 1, &entry);
        }
        self.event(step, |event| text(event, 5, &summary))
    }

    fn event(&mut self, step: usize, what: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut event = Vec::new();
        key(&mut event, 1, 1);
        event.extend(now().to_le_bytes());
        number(&mut event, 2, step as u64);
        what(&mut event);
        let length = (event.len() as u64).to_le_bytes();
        let mut bytes = length.to_vec();
        bytes.extend(masked_crc(&length).to_le_bytes());
        bytes.extend(&event);
        bytes.extend(masked_crc(&event).to_le_bytes());
        self.file.write_all(&bytes)
    }
}

/// The step of a record and its numbers by their tags.
fn scalars(record: &Record) -> (usize, Vec<(String, f64)>) {
    match record {
        Record::Train {
            step,
            loss,
            lr,
            grad_norm,
            items_per_s,
            ..
        } => {
            let scalars = [
                ("train/loss", *loss),
                ("train/lr", *lr),
                ("train/grad_norm", *grad_norm),
                ("train/items_per_s", *items_per_s),
            ];
            (
                *step,
                scalars.map(|(tag, value)| (tag.to_string(), value)).into(),
            )
        }
        Record::Valid {
            step,
            loss,
            metric,
            score,
            scores,
            ..
        } => {
            let mut scalars = vec![
                ("val/loss".to_string(), *loss),
                (format!("val/{metric}"), *score),
            ];
            let others = scores.iter().filter(|(name, _)| *name != metric);
            scalars.extend(others.map(|(name, value)| (format!("val/{name}"), *value)));
            (*step, scalars)
        }
        Record::Skipped { step, .. } => (*step, vec![("train/skipped".to_string(), 1.0)]),
        Record::Samples { step, .. } => (*step, Vec::new()),
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// The key of a protobuf field: 0 for numbers, 1 for 64 bits, 2 for bytes, 5 for 32 bits.
fn key(message: &mut Vec<u8>, field: u64, wire: u64) {
    varint(message, field << 3 | wire);
}

fn number(message: &mut Vec<u8>, field: u64, value: u64) {
    key(message, field, 0);
    varint(message, value);
}

fn text(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(message, field, 2);
    varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// The checksum of a record, rotated and moved so that checksums of checksums stay good ones.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that TensorBoard 2.21's own writer makes of the same event, time aside.
    #[test]
    fn an_event_has_the_bytes_of_tensorboards_writer() {
        let mut summary = Vec::new();
        let mut entry = Vec::new();
        text(&mut entry, 1, b"train/loss");
        key(&mut entry, 2, 5);
        entry.extend(0.5f32.to_le_bytes());
        text(&mut summary, 1, &entry);
        let mut event = Vec::new();
        key(&mut event, 1, 1);
        event.extend(1.5f64.to_le_bytes());
        number(&mut event, 2, 300);
        text(&mut event, 5, &summary);
        let hex: String = event.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "09000000000000f83f10ac022a130a110a0a747261696e2f6c6f7373150000003f"
        );
        let length = (event.len() as u64).to_le_bytes();
        assert_eq!(masked_crc(&length), 0xf6ec_7b01);
        assert_eq!(masked_crc(&event), 0x3164_6ab5);
    }
}
