//! Augmented views, and the cache of what a frozen image encoder makes of them.

use std::fs;
use std::path::PathBuf;

use blip2_tests::{Experiment, fails, trained};
use serde_json::Value;

const AUGMENTATION: &str = "--set data.augmentation.crop_area=[0.5,1.0] \
    --set data.augmentation.crop_ratio=[0.75,1.3333] \
    --set data.augmentation.horizontal_flip=0.5 \
    --set data.augmentation.rand_augment.operations=2 \
    --set data.augmentation.rand_augment.level=5";

fn train(experiment: &Experiment, run: &str, arguments: &str) -> Vec<Value> {
    trained(experiment, "debug.toml", run, arguments)
}

/// The feature files in a folder, in order.
fn caches(folder: PathBuf) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of features")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

fn losses(metrics: &[Value]) -> Vec<f64> {
    let losses = metrics.iter().map(|record| record["loss"].as_f64());
    losses.collect::<Option<_>>().expect("a loss in every line")
}

#[test]
fn views_depend_on_seed_epoch_and_index_alone() {
    let experiment = Experiment::new();
    let plain = train(&experiment, "plain", "");
    let set = |workers: usize| format!("{AUGMENTATION} --set data.num_workers={workers}");
    let one = train(&experiment, "one", &set(1));
    assert_ne!(losses(&plain), losses(&one), "pixels change");
    assert_eq!(one, train(&experiment, "three", &set(3)));
    let seed = format!("{AUGMENTATION} --set seed=43");
    assert_ne!(losses(&one), losses(&train(&experiment, "seed", &seed)));
}

/// In f32 a cached run is the uncached one, bit for bit: same views, same losses, same captions.
#[test]
fn cached_features_train_as_the_images_do() {
    let experiment = Experiment::new();
    for (name, more) in [("plain", ""), ("views", AUGMENTATION)] {
        let views = if more.is_empty() { 1 } else { 3 };
        // Three captions of an image and two epochs see all three views.
        let set = |cache: &str| {
            format!(
                "{more} --set features.cache={cache} --set features.views={views} \
                 --set data.captions=all"
            )
        };
        let none = train(&experiment, &format!("{name}-none"), &set("none"));
        for cache in ["memory", "disk"] {
            let cached = train(&experiment, &format!("{name}-{cache}"), &set(cache));
            assert_eq!(none, cached, "{name}, {cache}");
        }
    }
    assert_eq!(caches(experiment.path("views-disk/features")).len(), 2);
}

#[test]
fn half_precision_features_are_near() {
    let experiment = Experiment::new();
    let full = losses(&train(&experiment, "f32", "--set features.cache=memory"));
    for dtype in ["f16", "bf16"] {
        let set = format!("--set features.cache=disk --set features.dtype={dtype}");
        let half = losses(&train(&experiment, dtype, &set));
        for (full, half) in full.iter().zip(half) {
            // bf16 keeps 8 bits; 16 steps amplify little.
            assert!((full - half).abs() < 0.02 * full, "{dtype}: {half}, {full}");
        }
    }
}

/// A second run with the same tower, transforms and images takes the file of the first.
#[test]
fn a_cache_on_disk_is_shared_and_never_mistaken() {
    let experiment = Experiment::new();
    let shared = "--set features.cache=disk --set features.folder=cache";
    let first = train(&experiment, "first", shared);
    let files = caches(experiment.path("cache"));
    assert_eq!(files.len(), 2, "train and val: {files:?}");
    let bytes = fs::read(&files[0]).expect("a cache");
    let written = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).unwrap();
    let before = written(&files[0]);
    assert_eq!(first, train(&experiment, "second", shared));
    assert_eq!(before, written(&files[0]), "it is not made again");

    // Another seed makes another random tower: another file.
    train(&experiment, "tower", &format!("{shared} --set seed=7"));
    let all = caches(experiment.path("cache"));
    assert_eq!(all.len(), 4);

    // The features of other weights under this run's name.
    let other = all
        .iter()
        .find(|path| !files.contains(path) && path.to_string_lossy().contains("train-"))
        .expect("the other tower's");
    fs::copy(other, &files[0]).expect("a copy");
    let run = format!("train --config debug.toml --out wrong {shared}");
    fails(
        &experiment,
        &run,
        1,
        &["train-", "another image encoder", "delete it"],
    );

    fs::write(&files[0], &bytes[..bytes.len() - 9]).expect("a cut file");
    let run = run.replace("wrong", "cut");
    fails(&experiment, &run, 1, &["train-", "is cut off"]);

    // Other images, the same tower: the name is the same.
    fs::write(&files[0], &bytes).expect("the file as it was");
    fs::copy(
        experiment.path("data/images/000002.png"),
        experiment.path("data/images/000004.png"),
    )
    .expect("another image");
    let run = run.replace("cut", "images");
    fails(&experiment, &run, 1, &["train-", "other images"]);
}

#[test]
fn unreadable_images_are_left_out_of_the_cache_too() {
    let experiment = Experiment::new();
    let image = experiment.path("data/images/000002.png");
    let bytes = fs::read(&image).expect("an image");
    // The header is whole, so it is found only when it is decoded.
    fs::write(&image, &bytes[..bytes.len() / 2]).expect("a cut image");
    let set = "--set data.on_error=skip --set features.cache=";
    let none = train(&experiment, "none", &format!("{set}none"));
    let disk = train(&experiment, "disk", &format!("{set}disk"));
    assert_eq!(none, disk);
    fails(
        &experiment,
        "train --config debug.toml --out run --set features.cache=memory",
        1,
        &["000002.png"],
    );
}

#[test]
fn features_need_a_frozen_encoder_and_views_an_augmentation() {
    let experiment = Experiment::new();
    let run = "train --config debug.toml --out run --set features.cache=memory";
    let trained = format!("{run} --set model.vision_backbone.frozen=false");
    fails(&experiment, &trained, 2, &["features.cache", "frozen"]);
    let views = format!("{run} --set features.views=2");
    fails(
        &experiment,
        &views,
        2,
        &["features.views", "data.augmentation"],
    );
}

#[test]
fn captions_are_learned_as_they_are_cleaned() {
    let experiment = Experiment::new();
    let shouted = |text: &str| {
        let annotations = experiment.path("data/annotations/captions_train.json");
        let mut file = blip2_tests::read_json(&annotations);
        for annotation in file["annotations"].as_array_mut().expect("annotations") {
            let caption = annotation["caption"].as_str().expect("a caption");
            annotation["caption"] = format!("{}{text}", caption.to_uppercase()).into();
        }
        fs::write(annotations, file.to_string()).expect("annotations");
    };
    let clean = "--set data.caption_cleaning.kind=clean_caption";
    let quiet = train(&experiment, "quiet", clean);
    shouted("!!");
    assert_eq!(quiet, train(&experiment, "cleaned", clean));
    assert_ne!(quiet, train(&experiment, "loud", ""));
    let cut = "--set data.caption_cleaning.kind=blip_caption \
               --set data.caption_cleaning.max_words=0";
    let run = format!("train --config debug.toml --out empty {cut}");
    fails(&experiment, &run, 2, &["image", "data.caption_cleaning"]);
}
