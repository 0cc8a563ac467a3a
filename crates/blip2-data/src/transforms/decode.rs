//! Image files to RGB pixels.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use image::{ImageReader, RgbImage};

use crate::DataError;

/// What a file may ask of the decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Pixels that a header may announce; the default is where Pillow refuses as well.
    pub max_pixels: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_pixels: 2 * 89_478_485,
        }
    }
}

/// Width and height from the header alone.
///
/// # Errors
///
/// A file that can't be opened, that is no image, or that announces too many pixels.
pub fn probe(path: &Path, limits: &DecodeLimits) -> Result<(u32, u32), DataError> {
    let (width, height) = open(path)?
        .into_dimensions()
        .map_err(|error| unreadable(path, &error))?;
    check(path, width, height, limits)?;
    Ok((width, height))
}

/// Decodes a JPEG, PNG or WebP file to RGB, as Pillow's `convert("RGB")`: an alpha channel is
/// dropped, not blended, and EXIF orientation is not applied (nor does `BlipImageProcessor`).
///
/// # Errors
///
/// As [`probe`], and a file that is cut off. Nothing is allocated for a header that lies.
pub fn decode(path: &Path, limits: &DecodeLimits) -> Result<RgbImage, DataError> {
    probe(path, limits)?;
    let image = open(path)?
        .decode()
        .map_err(|error| unreadable(path, &error))?;
    Ok(image.into_rgb8())
}

fn open(path: &Path) -> Result<ImageReader<BufReader<File>>, DataError> {
    let reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(DataError::io(path))?;
    Ok(reader)
}

fn unreadable(path: &Path, error: &image::ImageError) -> DataError {
    DataError::Image {
        path: path.into(),
        reason: error.to_string(),
    }
}

fn check(path: &Path, width: u32, height: u32, limits: &DecodeLimits) -> Result<(), DataError> {
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(DataError::TooLarge {
            path: path.into(),
            width,
            height,
            limit: limits.max_pixels,
        });
    }
    if width == 0 || height == 0 {
        return Err(DataError::Image {
            path: path.into(),
            reason: "it has no pixels".into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

    use super::*;

    fn save(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn png() -> Vec<u8> {
        let image = RgbaImage::from_pixel(20, 10, Rgba([200, 100, 50, 0]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn jpeg() -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        DynamicImage::new_rgb8(64, 64)
            .write_to(&mut bytes, ImageFormat::Jpeg)
            .unwrap();
        bytes.into_inner()
    }

    #[test]
    fn content_decides_not_the_extension_and_alpha_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = save(folder.path(), "really_png.jpg", &png());
        assert_eq!(probe(&path, &DecodeLimits::default()).unwrap(), (20, 10));
        let image = decode(&path, &DecodeLimits::default()).unwrap();
        assert_eq!(
            image.get_pixel(0, 0).0,
            [200, 100, 50],
            "transparent, but not blended"
        );
    }

    #[test]
    fn bad_files_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let limits = DecodeLimits::default();
        // A PNG header of 50,000 × 50,000 pixels: width and height stand at bytes 16 to 24.
        let mut huge = png();
        for offset in [16, 20] {
            huge[offset..offset + 4].copy_from_slice(&50_000u32.to_be_bytes());
        }
        let crc = crc32(&huge[12..29]);
        huge[29..33].copy_from_slice(&crc.to_be_bytes());
        let (png, jpeg) = (png(), jpeg());
        for (name, bytes) in [
            ("huge.png", &huge[..]),
            ("cut.png", &png[..png.len() / 2]),
            ("cut.jpg", &jpeg[..jpeg.len() / 3]),
            ("text.png", b"this is no image"),
            ("empty.jpg", b""),
        ] {
            let path = save(folder.path(), name, bytes);
            let error = decode(&path, &limits).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            let too_large = matches!(error, DataError::TooLarge { width: 50_000, .. });
            assert_eq!(too_large, name == "huge.png", "{error}");
        }
        let error = decode(&folder.path().join("none.jpg"), &limits).unwrap_err();
        assert!(error.to_string().contains("none.jpg"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
            })
        })
    }
}
