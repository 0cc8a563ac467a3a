//! From a scene to pixels.

use image::imageops::{FilterType, overlay, resize};
use image::{Rgb, RgbImage, RgbaImage};
use rand::{Rng, RngExt};
use twemoji_assets::png::PngTwemojiAsset;

use super::scene::{Background, CANVAS, CATEGORIES, COLOURS, Scene};
use crate::DataError;

/// The drawings, decoded once.
#[derive(Debug)]
pub struct Sprites(Vec<RgbaImage>);

impl Sprites {
    /// Decodes every category's drawing.
    ///
    /// # Errors
    ///
    /// If the artwork lacks one.
    pub fn load() -> Result<Self, DataError> {
        CATEGORIES
            .iter()
            .map(|(emoji, _)| {
                let missing = || DataError::Artwork {
                    emoji: (*emoji).to_string(),
                };
                let asset = PngTwemojiAsset::from_emoji(emoji)
                    .or_else(|| PngTwemojiAsset::from_emoji(emoji.trim_end_matches('\u{fe0f}')))
                    .ok_or_else(missing)?;
                let bytes: &[u8] = asset;
                let image = image::load_from_memory(bytes).map_err(|_| missing())?;
                Ok(image.into_rgba8())
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Draws the scene. Shades vary a little from image to image.
pub fn render(scene: &Scene, sprites: &Sprites, rng: &mut impl Rng) -> RgbImage {
    let mut canvas = image::DynamicImage::ImageRgb8(background(scene.background, rng)).into_rgba8();
    for object in &scene.objects {
        let side = object.side as u32;
        let sprite = resize(
            &sprites.0[object.category],
            side,
            side,
            FilterType::CatmullRom,
        );
        let (x, y) = object.centre;
        overlay(
            &mut canvas,
            &sprite,
            x - object.side / 2,
            y - object.side / 2,
        );
    }
    image::DynamicImage::ImageRgba8(canvas).into_rgb8()
}

fn background(background: Background, rng: &mut impl Rng) -> RgbImage {
    let (_, colour) = COLOURS[background.colour];
    let jitter: i16 = rng.random_range(-10..=10);
    let shade = |delta: i16| {
        Rgb(colour.map(|value| (i16::from(value) + jitter + delta).clamp(0, 255) as u8))
    };
    let (first, second) = (shade(0), shade(-38));
    let period: i64 = rng.random_range(20..28);
    let vertical = rng.random_bool(0.5);
    RgbImage::from_fn(CANVAS as u32, CANVAS as u32, |x, y| {
        let (x, y) = (i64::from(x), i64::from(y));
        let textured = match background.texture {
            1 => {
                let along = if vertical { x } else { y };
                along.rem_euclid(period) < period / 2
            }
            2 => {
                let (dx, dy) = (
                    x.rem_euclid(period) - period / 2,
                    y.rem_euclid(period) - period / 2,
                );
                dx * dx + dy * dy < (period * period) / 14
            }
            3 => (x / (period / 2) + y / (period / 2)) % 2 == 0,
            _ => false,
        };
        if textured { second } else { first }
    })
}
