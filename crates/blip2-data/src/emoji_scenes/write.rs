//! The files of the data set.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::annotate::{Written, captions_json, instances_json, karpathy_json};
use super::describe::describe;
use super::render::{Sprites, render};
use super::scene::{Scene, Split};
use super::{EmojiScenesConfig, GENERATOR_VERSION, HeldOut};
use crate::DataError;

const MANIFEST: &str = "manifest.json";
const JPEG_QUALITY: u8 = 92;

const LICENCE: &str = "The drawings are Twemoji graphics, copyright Twitter, Inc and other \
contributors,\nlicensed under CC-BY 4.0: https://creativecommons.org/licenses/by/4.0/\n\
They were scaled and composed to scenes.\n";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    generator_version: u32,
    config: EmojiScenesConfig,
}

/// What [`write()`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Images of all splits.
    pub images: usize,
    /// Captions of all splits.
    pub captions: usize,
}

/// Whether `out` holds the whole data set of `config`.
pub fn is_complete(out: &Path, config: &EmojiScenesConfig) -> bool {
    let expected = Manifest {
        generator_version: GENERATOR_VERSION,
        config: config.clone(),
    };
    fs::read(out.join(MANIFEST))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok())
        .is_some_and(|manifest| manifest == expected)
}

/// Makes the data set in `out`, through a temporary folder beside it; `progress` hears (images
/// done, images in all). A data set of this kind that is there already is replaced.
///
/// # Errors
///
/// If `out` holds something else, or can't be written.
pub fn write(
    out: &Path,
    config: &EmojiScenesConfig,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Summary, DataError> {
    if out.exists() && !out.join(MANIFEST).exists() {
        let empty = fs::read_dir(out)
            .map_err(DataError::io(out))?
            .next()
            .is_none();
        if !empty {
            return Err(DataError::NotEmoji { folder: out.into() });
        }
    }
    let mut temporary = out.as_os_str().to_owned();
    temporary.push(".partial");
    let temporary = Path::new(&temporary);
    if temporary.exists() {
        fs::remove_dir_all(temporary).map_err(DataError::io(temporary))?;
    }
    let images = temporary.join("images");
    fs::create_dir_all(&images).map_err(DataError::io(&images))?;
    let written = write_images(&images, config, progress)?;
    write_annotations(temporary, &written)?;
    save(&temporary.join("LICENSE-twemoji.txt"), LICENCE.as_bytes())?;
    let manifest = Manifest {
        generator_version: GENERATOR_VERSION,
        config: config.clone(),
    };
    // Last: its presence means that everything else is there.
    save_json(&temporary.join(MANIFEST), &json!(manifest))?;
    if out.exists() {
        fs::remove_dir_all(out).map_err(DataError::io(out))?;
    }
    fs::rename(temporary, out).map_err(DataError::io(out))?;
    Ok(Summary {
        images: written.len(),
        captions: written.iter().map(|image| image.captions.len()).sum(),
    })
}

fn write_images(
    folder: &Path,
    config: &EmojiScenesConfig,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Written>, DataError> {
    let sprites = Sprites::load()?;
    let held_out = HeldOut::new(config.seed);
    let jobs: Vec<Split> = config
        .splits()
        .into_iter()
        .flat_map(|(split, count)| std::iter::repeat_n(split, count))
        .collect();
    let (total, done) = (jobs.len(), AtomicUsize::new(0));
    jobs.into_par_iter()
        .enumerate()
        .map(|(index, split)| {
            // A stream of its own for each image: threads don't matter.
            let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
            rng.set_stream(index as u64 + 1);
            let scene = Scene::random(split, &held_out, &mut rng);
            let captions = describe(&scene, &mut rng);
            let pixels = render(&scene, &sprites, &mut rng);
            let id = index + 1;
            let extension = if id.is_multiple_of(2) { "png" } else { "jpg" };
            let file_name = format!("{id:06}.{extension}");
            save(&folder.join(&file_name), &encode(&pixels, extension)?)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok(Written {
                id,
                split,
                file_name,
                scene,
                captions,
            })
        })
        .collect()
}

fn encode(pixels: &RgbImage, extension: &str) -> Result<Vec<u8>, DataError> {
    let (width, height) = pixels.dimensions();
    let mut bytes = Vec::new();
    let result = if extension == "png" {
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
            .write_image(pixels, width, height, ExtendedColorType::Rgb8)
    } else {
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode_image(pixels)
    };
    result.map_err(|error| DataError::Encode {
        reason: error.to_string(),
    })?;
    Ok(bytes)
}

fn write_annotations(out: &Path, written: &[Written]) -> Result<(), DataError> {
    let folder = out.join("annotations");
    fs::create_dir_all(&folder).map_err(DataError::io(&folder))?;
    for split in [Split::Train, Split::Val, Split::Test, Split::TestSeen] {
        let images: Vec<&Written> = written
            .iter()
            .filter(|image| image.split == split)
            .collect();
        let name = split.name();
        save_json(
            &folder.join(format!("captions_{name}.json")),
            &captions_json(&images),
        )?;
        if matches!(split, Split::Train | Split::Val) {
            save_json(
                &folder.join(format!("instances_{name}.json")),
                &instances_json(&images),
            )?;
        }
    }
    save_json(&out.join("dataset_karpathy.json"), &karpathy_json(written))
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    fs::write(path, bytes).map_err(DataError::io(path))
}

fn save_json(path: &Path, value: &Value) -> Result<(), DataError> {
    save(path, (value.to_string() + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::emoji_scenes::Axis;
    use crate::emoji_scenes::scene::name;

    fn small(seed: u64) -> EmojiScenesConfig {
        EmojiScenesConfig {
            seed,
            train: 40,
            val: 6,
            test: 20,
            test_seen: 6,
        }
    }

    fn bytes(folder: &Path) -> Vec<Vec<u8>> {
        let mut files = vec![fs::read(folder.join("annotations/captions_train.json")).unwrap()];
        for id in 1..=40 {
            let extension = if id % 2 == 0 { "png" } else { "jpg" };
            files.push(fs::read(folder.join(format!("images/{id:06}.{extension}"))).unwrap());
        }
        files
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, seed, threads| {
            let folder = root.path().join(name);
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| write(&folder, &small(seed), &|_, _| {}))
                .unwrap();
            assert!(is_complete(&folder, &small(seed)));
            bytes(&folder)
        };
        let one = make("one", 7, 1);
        assert!(one == make("two", 7, 2));
        assert!(one != make("other", 8, 2));
    }

    #[test]
    fn another_folder_is_never_replaced() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.txt"), "precious").unwrap();
        let error = write(root.path(), &small(1), &|_, _| {}).unwrap_err();
        assert!(matches!(error, DataError::NotEmoji { .. }));
        assert!(root.path().join("thesis.txt").exists());
    }

    /// Over thousands of scenes of each split: what `test` is for, no other split shows.
    #[test]
    fn the_test_split_is_compositional() {
        let held_out = HeldOut::new(2301);
        let scenes = |split| {
            (0..3000u64).map(move |index| {
                let mut rng = ChaCha8Rng::seed_from_u64(5);
                rng.set_stream(index);
                Scene::random(split, &HeldOut::new(2301), &mut rng)
            })
        };
        let mut train: BTreeSet<(usize, usize, Axis)> = BTreeSet::new();
        for split in [Split::Train, Split::Val, Split::TestSeen] {
            for scene in scenes(split) {
                for (a, b) in scene.pairs() {
                    assert!(!held_out.contains((a, b), scene.axis));
                    train.insert((a, b, scene.axis));
                }
            }
        }
        let (mut pairs, mut relations) = (0, 0);
        for scene in scenes(Split::Test) {
            let unseen: Vec<_> = scene
                .pairs()
                .into_iter()
                .filter(|&pair| held_out.contains(pair, scene.axis))
                .collect();
            assert!(!unseen.is_empty());
            assert!(
                unseen
                    .iter()
                    .all(|&(a, b)| !train.contains(&(a, b, scene.axis)))
            );
            if unseen.iter().any(|&pair| held_out.contains_pair(pair)) {
                pairs += 1;
            } else {
                relations += 1;
            }
        }
        assert!(pairs > 1000 && relations > 1000, "{pairs} {relations}");
    }

    #[test]
    fn every_image_has_five_different_captions_that_name_its_objects() {
        let held_out = HeldOut::new(3);
        for index in 0..500 {
            let mut rng = ChaCha8Rng::seed_from_u64(9);
            rng.set_stream(index);
            let scene = Scene::random(Split::Train, &held_out, &mut rng);
            let captions = describe(&scene, &mut rng);
            let different: BTreeSet<&String> = captions.iter().collect();
            assert_eq!(different.len(), 5, "{captions:?}");
            let alike = scene.objects.len() == 2 && scene.pairs().is_empty();
            for caption in captions.iter().filter(|_| !alike) {
                for object in &scene.objects {
                    assert!(caption.contains(&name(object.category)), "{caption}");
                }
            }
        }
    }
}
