//! JPEG files to the pixels that libjpeg-turbo, and so Pillow, makes of them.
//!
//! Decoders round the inverse DCT, the upsampling of chroma and the colour conversion differently:
//! the `image` crate's is off by up to 9 of 255 at chroma edges, and by 64 in images narrower than
//! a block. `libjpeg-turbo-rs` does libjpeg-turbo's integer arithmetic.

use std::path::Path;

use image::RgbImage;
use image::metadata::Orientation;
use libjpeg_turbo_rs::{Decoder, PixelFormat};

use super::decode::{DecodeLimits, check};
use crate::DataError;

/// Decodes a whole JPEG to RGB, with its EXIF orientation beside it, not applied.
///
/// Ink (CMYK and YCCK) becomes RGB as in Pillow, which takes 255 for "no ink" with and without an
/// Adobe marker. `None` stands for a layout that is left to another decoder.
///
/// # Errors
///
/// A file that is cut off or damaged, or that has too many pixels.
pub(super) fn decode(
    path: &Path,
    bytes: &[u8],
    limits: &DecodeLimits,
) -> Result<Option<(RgbImage, Orientation)>, DataError> {
    let unreadable = |error: libjpeg_turbo_rs::JpegError| DataError::Image {
        path: path.into(),
        reason: error.to_string(),
    };
    let mut decoder = Decoder::new(bytes).map_err(unreadable)?;
    let header = decoder.header();
    let (width, height) = (u32::from(header.width), u32::from(header.height));
    check(path, width, height, limits)?;
    let sampling: Vec<_> = header
        .components
        .iter()
        .map(|component| (component.horizontal_sampling, component.vertical_sampling))
        .collect();
    if header.precision != 8 || header.is_lossless || !is_usual(&sampling) {
        return Ok(None);
    }
    let orientation = decoder
        .exif_orientation()
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms);
    decoder.set_output_format(PixelFormat::Rgb);
    let image = decoder.decode_image().map_err(unreadable)?;
    Ok(RgbImage::from_raw(width, height, image.data).map(|pixels| (pixels, orientation)))
}

/// Whether `libjpeg-turbo-rs` is safe with these sampling factors (horizontal, vertical): with
/// fractions, or with ink planes of different sizes, version 0.9 panics.
fn is_usual(sampling: &[(u8, u8)]) -> bool {
    let max_horizontal = sampling.iter().map(|factors| factors.0).max().unwrap_or(0);
    let max_vertical = sampling.iter().map(|factors| factors.1).max().unwrap_or(0);
    let divides = |factor: u8, max: u8| {
        factor > 0 && max.is_multiple_of(factor) && matches!(max / factor, 1 | 2 | 4)
    };
    match sampling.len() {
        1 | 3 => sampling
            .iter()
            .all(|&(h, v)| divides(h, max_horizontal) && divides(v, max_vertical)),
        4 => max_horizontal > 0 && max_vertical > 0 && sampling.iter().all(|&f| f == sampling[0]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, ImageFormat};

    use super::*;

    #[test]
    fn only_usual_sampling_is_taken() {
        let chroma = (1, 1);
        for luma in [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)] {
            assert!(is_usual(&[luma, chroma, chroma]), "{luma:?}");
        }
        assert!(is_usual(&[(2, 2)]) && is_usual(&[(1, 1); 4]));
        assert!(!is_usual(&[(3, 1), chroma, chroma]));
        assert!(!is_usual(&[(2, 2), chroma, chroma, (2, 2)]));
        assert!(!is_usual(&[(0, 1), chroma, chroma]) && !is_usual(&[(0, 0); 4]));
        assert!(!is_usual(&[]) && !is_usual(&[chroma; 2]));
    }

    /// What is damaged is an error or an image; it never panics.
    #[test]
    fn damaged_bytes_never_panic() {
        let mut file = std::io::Cursor::new(Vec::new());
        DynamicImage::new_rgb8(33, 17)
            .write_to(&mut file, ImageFormat::Jpeg)
            .unwrap();
        let good = file.into_inner();
        for index in 0..good.len() {
            for value in [0, 0x11, 0x13, 0x24, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[index] = value;
                let limits = DecodeLimits {
                    max_pixels: 1 << 20,
                };
                let _ = decode(Path::new("bad.jpg"), &bad, &limits);
            }
        }
    }
}
