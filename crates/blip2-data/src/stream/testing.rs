//! Small shards for tests.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use ::tar::{Builder, Header};
use image::{ImageFormat, Rgb, RgbImage};

/// A tar of `(name, bytes)`, whatever the names; long ones as GNU has them.
pub(crate) fn tar<'a>(entries: impl Iterator<Item = (&'a str, Vec<u8>)>) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        if name.len() < 100 {
            // `set_path` refuses what tests of bad input need.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, &bytes[..]).unwrap();
        } else {
            builder.append_data(&mut header, name, &bytes[..]).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// A small image whose colour tells its number.
pub(crate) fn png(number: usize) -> Vec<u8> {
    let colour = [(number % 256) as u8, (number / 256) as u8, 7];
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(4, 3, Rgb(colour))
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// Writes a shard of the samples `numbers`: an image, and its number as caption.
pub(crate) fn write_shard(path: &Path, numbers: impl Iterator<Item = usize>) -> PathBuf {
    let samples: Vec<(String, String, usize)> = numbers
        .map(|number| {
            (
                format!("{number:06}.png"),
                format!("{number:06}.txt"),
                number,
            )
        })
        .collect();
    let entries = samples.iter().flat_map(|(image, text, number)| {
        let caption = format!("{number}\n").into_bytes();
        [(image.as_str(), png(*number)), (text.as_str(), caption)]
    });
    std::fs::write(path, tar(entries)).unwrap();
    path.into()
}
