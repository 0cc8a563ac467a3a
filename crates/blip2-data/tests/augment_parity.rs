//! Augmented pixels against LAVIS's operations, torchvision's and Pillow's crops;
//! `tests/reference/augment.py` made the file.

use blip2_data::transforms::{CropBox, ImageProcessorConfig, Operation, Resample, View};
use image::RgbImage;
use safetensors::SafeTensors;

const REFERENCE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/reference/augment/expected.safetensors"
);

fn operation(name: &str, number: f64) -> Option<Operation> {
    Some(match name {
        "auto_contrast" => Operation::AutoContrast,
        "equalize" => Operation::Equalize,
        "brightness" => Operation::Brightness(number),
        "sharpness" => Operation::Sharpness(number),
        "shear_x" => Operation::ShearX(number),
        "shear_y" => Operation::ShearY(number),
        "translate_x" => Operation::TranslateX(number),
        "translate_y" => Operation::TranslateY(number),
        "rotate" => Operation::Rotate(number),
        _ => return None,
    })
}

/// 8-bit values, as `[size, size, 3]`.
fn cropped(image: &RgbImage, numbers: &str) -> Vec<u8> {
    let flip = numbers.ends_with(",flip");
    let numbers: Vec<u32> = numbers
        .trim_end_matches(",flip")
        .split(',')
        .map(|number| number.parse().unwrap())
        .collect();
    let [left, top, width, height, size] = numbers[..] else {
        panic!("{numbers:?}")
    };
    let view = View {
        crop: CropBox {
            left,
            top,
            width,
            height,
        },
        flip,
        operations: Vec::new(),
    };
    let side = size as usize;
    // Mean 0 and deviation 1 leave n/255, which gives back the 8 bits.
    let processor = ImageProcessorConfig {
        size: [side, side],
        resample: Resample::Bicubic,
        image_mean: [0.0; 3],
        image_std: [1.0; 3],
    };
    let values = processor.init().unwrap().process_view(image, &view);
    (0..3 * side * side)
        .map(|index| (values[(index % 3) * side * side + index / 3] * 255.0).round() as u8)
        .collect()
}

#[test]
fn every_operation_and_crop_is_the_references_to_the_bit() {
    let bytes = std::fs::read(REFERENCE).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let input = tensors.tensor("image").unwrap();
    let (height, width) = (input.shape()[0], input.shape()[1]);
    let image = RgbImage::from_raw(width as u32, height as u32, input.data().to_vec()).unwrap();
    let mut checked = 0;
    for (key, expected) in tensors.tensors() {
        let (name, numbers) = key.split_once(':').unwrap_or((&key, "0"));
        let found = match operation(name, numbers.parse().unwrap_or(0.0)) {
            Some(operation) => operation.apply(input.data().to_vec(), width),
            None if name == "crop" => cropped(&image, numbers),
            None => {
                assert_eq!(key, "image");
                continue;
            }
        };
        assert_eq!(found, expected.data(), "{key}");
        checked += 1;
    }
    assert_eq!(checked, 38);
}
