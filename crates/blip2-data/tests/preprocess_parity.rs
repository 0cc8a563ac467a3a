//! Preprocessing against Pillow and transformers; `tests/reference/preprocess.py` made the files.

use std::fs;
use std::path::{Path, PathBuf};

use blip2_data::transforms::{
    DecodeLimits, ImageProcessorConfig, Resample, decode, decode_upright,
};
use image::RgbImage;
use safetensors::SafeTensors;

/// Nothing is lost between the file and 8 bits: PNG and WebP have one right answer, JPEG decodes
/// with libjpeg-turbo's integers, and the resize has Pillow's.
const MAX_DIFFERENCE: f64 = 0.0;

/// The reference scales and normalises in another order; f32 holds seven digits of values below 3.
const NORMALISED: f32 = 1e-6;

const REFERENCE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/reference/preprocess"
);
const PHOTOGRAPHS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/photographs");

/// How the values in `expected.safetensors` were made; the part of a key behind its size.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    Bicubic,
    Bilinear,
    Upright,
    PixelValues,
}

/// `NAME.EXT@HxW` or `NAME.EXT@HxW/CASE`.
fn parse(key: &str) -> (PathBuf, Case) {
    let (name, rest) = key.split_once('@').unwrap();
    let case = match rest.split_once('/').map(|(_, case)| case) {
        None => Case::Bicubic,
        Some("bilinear") => Case::Bilinear,
        Some("upright") => Case::Upright,
        Some("pixel_values") => Case::PixelValues,
        Some(other) => panic!("{key}: {other} is unknown"),
    };
    (Path::new(REFERENCE).join(name), case)
}

/// `expected.safetensors`, one call for each entry of one of `cases`.
fn for_each(cases: &[Case], mut check: impl FnMut(&str, &Path, Case, &[usize], &[u8])) {
    let bytes = fs::read(Path::new(REFERENCE).join("expected.safetensors")).unwrap();
    let mut checked = 0;
    for (key, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let (path, case) = parse(&key);
        if cases.contains(&case) {
            check(&key, &path, case, tensor.shape(), tensor.data());
            checked += 1;
        }
    }
    assert!(checked > 0, "no case was checked");
}

fn process(image: &RgbImage, size: [usize; 2], resample: Resample) -> Vec<u8> {
    // Mean 0 and deviation 1 leave n/255, which gives back the 8 bits.
    let processor = ImageProcessorConfig {
        size,
        resample,
        image_mean: [0.0; 3],
        image_std: [1.0; 3],
    }
    .init()
    .unwrap();
    let values = processor.process(image);
    let area = size[0] * size[1];
    (0..3 * area)
        .map(|index| (values[(index % 3) * area + index / 3] * 255.0).round() as u8)
        .collect()
}

/// Greatest and mean difference, of 255.
fn difference(found: &[u8], expected: &[u8]) -> (f64, f64) {
    assert_eq!(found.len(), expected.len());
    let differences = found
        .iter()
        .zip(expected)
        .map(|(a, b)| f64::from(a.abs_diff(*b)));
    let mean = differences.clone().sum::<f64>() / found.len() as f64;
    (differences.fold(0.0, f64::max), mean)
}

/// Compares every case and reports all that fail, with their measures.
fn compare(cases: &[Case]) {
    let mut failed = Vec::new();
    for_each(cases, |key, path, case, shape, expected| {
        let limits = DecodeLimits::default();
        let image = match case {
            Case::Upright => decode_upright(path, &limits),
            _ => decode(path, &limits),
        };
        let filter = match case {
            Case::Bilinear => Resample::Bilinear,
            _ => Resample::Bicubic,
        };
        let found = process(&image.unwrap(), [shape[0], shape[1]], filter);
        let (max, mean) = difference(&found, expected);
        if max > MAX_DIFFERENCE {
            failed.push(format!("{key}: max {max}/255, mean {mean:.3}/255"));
        }
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn matches_pillow_blip_image_processor_pixels() {
    compare(&[Case::Bicubic, Case::Bilinear]);
}

#[test]
fn matches_transformers_load_image_exif_orientation() {
    compare(&[Case::Upright]);
}

#[test]
fn matches_pillow_blip_image_processor_normalised_values() {
    let clip = ImageProcessorConfig::from_hugging_face(&hugging_face_folder()).unwrap();
    let clip = clip.unwrap();
    for_each(&[Case::PixelValues], |key, path, _, shape, expected| {
        let image = decode(path, &DecodeLimits::default()).unwrap();
        let mut config = clip.clone();
        config.size = [shape[1], shape[2]];
        let found = config.init().unwrap().process(&image);
        let expected = expected.chunks_exact(4);
        let expected = expected.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        assert_eq!(found.len(), expected.len());
        let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        let max = differences.fold(0.0, f32::max);
        assert!(max <= NORMALISED, "{key}: max {max}");
    });
}

/// What transformers' own `Blip2Processor.save_pretrained` wrote.
fn hugging_face_folder() -> PathBuf {
    Path::new(REFERENCE).join("hugging_face")
}

#[test]
fn writes_what_transformers_blip2_processor_writes() {
    let folder = hugging_face_folder();
    let config = ImageProcessorConfig::from_hugging_face(&folder).unwrap();
    let config = config.unwrap();
    assert_eq!(config.size, [224, 224]);
    let text = fs::read_to_string(folder.join("processor_config.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config.to_hugging_face(), file["image_processor"]);
}

/// `cargo xtask test` fetches the photographs, and says so where it can't. Without them only this
/// test does nothing.
#[test]
fn matches_pillow_blip_image_processor_on_photographs() {
    for name in ["china", "flower"] {
        let path = Path::new(PHOTOGRAPHS).join(format!("{name}.jpg"));
        if !path.exists() {
            eprintln!("left out: {path:?} is not there; `cargo xtask test` fetches it");
            continue;
        }
        let expected = image::open(Path::new(REFERENCE).join(format!("{name}_224.png")));
        let image = decode(&path, &DecodeLimits::default()).unwrap();
        let found = process(&image, [224, 224], Resample::Bicubic);
        let (max, mean) = difference(&found, expected.unwrap().into_rgb8().as_raw());
        assert!(
            max <= MAX_DIFFERENCE,
            "{name}: max {max}/255, mean {mean}/255"
        );
    }
}
