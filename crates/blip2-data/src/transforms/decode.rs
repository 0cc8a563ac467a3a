//! Image files to RGB pixels.

use std::fs;
use std::io::{BufRead, Cursor, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use super::jpeg;
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
    let reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(DataError::io(path))?;
    check_header(path, reader, limits)
}

/// Decodes a JPEG, PNG or WebP file to RGB, as `PIL.Image.open(path).convert("RGB")`.
///
/// - An alpha channel is dropped, not blended: hidden colours show.
/// - 16-bit greyscale is cut off at 255 (and so is mostly white), as in Pillow 13; other 16-bit
///   samples keep their high byte.
/// - The EXIF orientation is not applied; see [`decode_upright`].
/// - Ink (CMYK) becomes RGB without a colour profile.
///
/// # Errors
///
/// As [`probe`], and a file that is cut off or, stricter than Pillow, damaged. Nothing is allocated
/// for a header that lies.
pub fn decode(path: &Path, limits: &DecodeLimits) -> Result<RgbImage, DataError> {
    let bytes = fs::read(path).map_err(DataError::io(path))?;
    decode_bytes(path, &bytes, limits)
}

/// As [`decode`], of the bytes of an image; `name` stands in messages.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_bytes(
    name: &Path,
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<RgbImage, DataError> {
    Ok(decode_with_orientation(name, bytes, limits)?.0)
}

/// As [`decode`], then turned and mirrored as the file's EXIF data say.
///
/// LAVIS and `Image.open(path)` don't turn images; transformers' `BlipImageProcessor` does when it
/// is given a path or an address, but not when it is given an opened image.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_upright(path: &Path, limits: &DecodeLimits) -> Result<RgbImage, DataError> {
    let bytes = fs::read(path).map_err(DataError::io(path))?;
    let (image, orientation) = decode_with_orientation(path, &bytes, limits)?;
    let mut image = DynamicImage::from(image);
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

fn decode_with_orientation(
    path: &Path,
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<(RgbImage, Orientation), DataError> {
    let reader = || {
        ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(DataError::io(path))
    };
    check_header(path, reader()?, limits)?;
    let reader = reader()?;
    let format = reader.format();
    if format == Some(ImageFormat::Jpeg)
        && let Some(decoded) = jpeg::decode(path, bytes, limits)?
    {
        return Ok(decoded);
    }
    let unreadable = |error| unreadable(path, &error);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    // Damaged EXIF data are as good as none.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    let is_grey_png = format == Some(ImageFormat::Png) && bytes.get(PNG_COLOUR_TYPE) == Some(&0);
    Ok((to_rgb(image, is_grey_png), orientation))
}

/// Where a PNG file says what its pixels are; 0 is greyscale without alpha.
const PNG_COLOUR_TYPE: usize = 25;

/// Pillow's `convert("RGB")`. `is_grey` tells greyscale with one transparent value, which the
/// decoder hands out as greyscale with alpha, from the real one: Pillow treats their 16 bits apart.
fn to_rgb(image: DynamicImage, is_grey: bool) -> RgbImage {
    let cut = |sample: u16| sample.min(255) as u8;
    let high = |sample: u16| (sample >> 8) as u8;
    let (width, height) = (image.width(), image.height());
    let pixels: Vec<u8> = match image {
        DynamicImage::ImageLuma16(image) => {
            let samples = image.into_raw().into_iter();
            samples.flat_map(|grey| [cut(grey); 3]).collect()
        }
        DynamicImage::ImageLumaA16(image) => {
            let narrow = |grey| if is_grey { cut(grey) } else { high(grey) };
            let pixels = image.pixels();
            pixels.flat_map(|pixel| [narrow(pixel.0[0]); 3]).collect()
        }
        DynamicImage::ImageRgb16(image) => image.into_raw().into_iter().map(high).collect(),
        DynamicImage::ImageRgba16(image) => {
            let colours = image
                .pixels()
                .flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]]);
            colours.map(high).collect()
        }
        other => return other.into_rgb8(),
    };
    // The buffer has three bytes a pixel by construction, so the other case can't occur.
    RgbImage::from_raw(width, height, pixels).unwrap_or_default()
}

fn check_header(
    path: &Path,
    reader: ImageReader<impl BufRead + Seek>,
    limits: &DecodeLimits,
) -> Result<(u32, u32), DataError> {
    let (width, height) = reader
        .into_dimensions()
        .map_err(|error| unreadable(path, &error))?;
    check(path, width, height, limits)?;
    Ok((width, height))
}

fn unreadable(path: &Path, error: &image::ImageError) -> DataError {
    DataError::Image {
        path: path.into(),
        reason: error.to_string(),
    }
}

/// Refuses an image of no pixels or of too many.
pub(super) fn check(
    path: &Path,
    width: u32,
    height: u32,
    limits: &DecodeLimits,
) -> Result<(), DataError> {
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

    use image::{Rgba, RgbaImage};

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

    /// Also where the image decoder itself would hand out half an image.
    #[test]
    fn a_cut_jpeg_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let image = RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 9]));
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, ImageFormat::Jpeg).unwrap();
        let file = file.into_inner();
        let limits = DecodeLimits::default();
        decode(&save(folder.path(), "whole.jpg", &file), &limits).unwrap();
        for percent in [60, 80, 95] {
            let path = save(
                folder.path(),
                "cut.jpg",
                &file[..file.len() * percent / 100],
            );
            let error = decode(&path, &limits).unwrap_err().to_string();
            assert!(error.contains("cut.jpg"), "{percent} %: {error}");
        }
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
