//! Runs that learn from tar shards.

use std::fs;
use std::path::Path;

use blip2_tests::{
    Experiment, expect_code, fails, metrics, read_json, stderr, trained, wait_for_checkpoint,
    weights_sha256,
};
use serde_json::json;

/// Shards and an annotated folder, two to one.
const STREAM: &str = r#"
[data.stream]
epoch_samples = 40
shuffle_window = 12

[[data.stream.sources]]
name = "packed"
weight = 2.0
shards = "shards/{00000..00003}.tar"

[[data.stream.sources]]
name = "folder"
weight = 1.0
annotations = "data/dataset_karpathy.json"
images = "data/images"
split = "train"

"#;

/// Packs the train split's images into four shards, as img2dataset lays them out.
fn write_shards(experiment: &Experiment) {
    let captions = read_json(&experiment.path("data/annotations/captions_train.json"));
    let images = captions["images"].as_array().expect("images");
    fs::create_dir(experiment.path("shards")).expect("a folder");
    for (number, images) in images.chunks(images.len().div_ceil(4)).enumerate() {
        let path = experiment.path(&format!("shards/{number:05}.tar"));
        let mut shard = tar::Builder::new(fs::File::create(path).expect("a shard"));
        for image in images {
            let annotations = captions["annotations"].as_array().expect("annotations");
            let own = annotations
                .iter()
                .find(|own| own["image_id"] == image["id"]);
            let caption = own.expect("a caption")["caption"].as_str().expect("a text");
            let name = image["file_name"].as_str().expect("a name");
            let pixels = fs::read(experiment.path("data/images").join(name)).expect("an image");
            let (key, extension) = name.split_once('.').expect("an extension");
            let json = json!({"caption": caption, "status": "success"}).to_string();
            for (extension, bytes) in [
                (extension, &pixels[..]),
                ("json", json.as_bytes()),
                ("txt", caption.as_bytes()),
            ] {
                append(&mut shard, &format!("{key}.{extension}"), bytes);
            }
        }
        shard.finish().expect("its end");
    }
}

fn append(shard: &mut tar::Builder<fs::File>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    // `set_path` refuses what a test of bad input needs.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    shard.append(&header, bytes).expect("an entry");
}

/// Puts the stream in the place of the config's train split.
fn stream_config(experiment: &Experiment, config: &str) {
    let text = fs::read_to_string(experiment.path(config)).expect("the config");
    let start = text.find("[data.train]").expect("the train split");
    let end = text.find("[data.val]").expect("the next table");
    let text = format!("{}{STREAM}{}", &text[..start], &text[end..]);
    fs::write(experiment.path(config), text).expect("the config");
}

/// The small experiment, from shards.
fn experiment() -> Experiment {
    let experiment = Experiment::new();
    write_shards(&experiment);
    stream_config(&experiment, "debug.toml");
    experiment
}

fn assert_same_end(experiment: &Experiment, run: &str, steps: usize) {
    let (clean, run) = (experiment.path("clean"), experiment.path(run));
    assert_eq!(metrics(&clean), metrics(&run));
    assert_eq!(weights_sha256(&clean, steps), weights_sha256(&run, steps));
    let captions = |run: &Path| read_json(&run.join("captions/test.json"));
    assert_eq!(captions(&clean), captions(&run));
}

/// The twin of the COCO recipe (augmentation, cleaned captions, accumulation), in the middle of an
/// epoch, of a shard and of a window; and once more without what it knew of its shards.
#[test]
fn a_killed_run_goes_on_bit_identically_inside_a_shard() {
    let experiment = Experiment::new();
    write_shards(&experiment);
    let config = experiment.twin("caption_coco_opt2.7b");
    stream_config(&experiment, &config);
    let set = "--set train.checkpoint_every=2 --set train.keep_last=20";
    let clean = trained(&experiment, &config, "clean", set);
    let steps = |kind: &str| clean.iter().filter(|record| record["kind"] == kind).count();
    assert_eq!(
        steps("train"),
        15,
        "3 steps of 8 × 2 in each of 5 epochs of 40"
    );

    let mut process = experiment.start(&format!("train --config {config} --out killed {set}"));
    wait_for_checkpoint(&experiment, "killed", 4);
    process.kill().expect("SIGKILL");
    process.wait().expect("the process ends");
    let output = experiment.blip2("train --resume killed");
    expect_code(&output, 0);
    assert!(
        stderr(&output).contains("going on after step"),
        "{}",
        stderr(&output)
    );
    assert_same_end(&experiment, "killed", 15);

    // Back to the middle of the second epoch, without the counts of the shards.
    for entry in fs::read_dir(experiment.path("killed/checkpoints")).expect("checkpoints") {
        let path = entry.expect("an entry").path();
        if !path.ends_with("step-4") {
            fs::remove_dir_all(path).expect("an old checkpoint");
        }
    }
    fs::remove_file(experiment.path("killed/shards.jsonl")).expect("the counts");
    let output = experiment.blip2("train --resume killed");
    expect_code(&output, 0);
    assert!(
        stderr(&output).contains("going on after step 4"),
        "{}",
        stderr(&output)
    );
    assert_same_end(&experiment, "killed", 15);
}

#[test]
fn a_run_goes_on_with_its_own_shards_alone() {
    let experiment = experiment();
    expect_code(&experiment.train("run", "--set train.epochs=1"), 0);
    let shard = experiment.path("shards/00002.tar");
    let bytes = fs::read(&shard).expect("a shard");
    fs::write(&shard, [&bytes[..], &[0; 512]].concat()).expect("another shard");
    let expected = ["shards/00002.tar", "has changed", "size in bytes"];
    fails(&experiment, "train --resume run", 1, &expected);
    // Without the counts it is not known which.
    fs::remove_file(experiment.path("run/shards.jsonl")).expect("the counts");
    fails(
        &experiment,
        "train --resume run",
        1,
        &["the train shards are not those"],
    );
    fs::write(&shard, bytes).expect("the old shard");
    expect_code(&experiment.blip2("train --resume run"), 0);
}

/// By default a bad shard is named and ends the run; with `skip` the run learns from the rest, and
/// says what it left out.
#[test]
fn bad_shards_end_the_run_or_are_skipped_counted_and_listed() {
    let experiment = experiment();
    let cut = experiment.path("shards/00001.tar");
    let bytes = fs::read(&cut).expect("a shard");
    fs::write(&cut, &bytes[..bytes.len() / 2]).expect("a cut");
    let train = "--set train.epochs=2";
    let run = format!("train --config debug.toml --out failed {train}");
    fails(&experiment, &run, 1, &["shards/00001.tar", "is cut off in"]);

    let path = experiment.path("shards/00003.tar");
    let mut shard = tar::Builder::new(fs::File::create(path).expect("a shard"));
    let image = fs::read(experiment.path("data/images/000001.jpg")).expect("an image");
    append(&mut shard, "good.jpg", &image);
    append(&mut shard, "good.txt", b"a dog");
    append(&mut shard, "../climbing.jpg", &image);
    append(&mut shard, "alone.jpg", &image);
    append(&mut shard, "torn.jpg", &image[..100]);
    append(&mut shard, "torn.txt", b"a cat");
    shard.finish().expect("its end");
    drop(shard);
    fs::remove_file(experiment.path("shards/00000.tar")).expect("a missing shard");
    let output = experiment.train("skipped", &format!("{train} --set data.on_error=skip"));
    expect_code(&output, 0);
    let text = stderr(&output);
    assert!(text.contains("5 items were skipped"), "{text}");
    let report = fs::read_to_string(experiment.path("skipped/report.html")).expect("the report");
    for expected in [
        "00000.tar: ",
        "00001.tar: byte ",
        "00003.tar: ../climbing.jpg: its path climbs out",
        "00003.tar: alone: has no caption",
        "00003.tar/torn: ",
    ] {
        assert!(report.contains(expected), "{expected}");
    }
}

#[test]
fn wrong_stream_tables_name_their_fields_with_code_2() {
    let experiment = experiment();
    let sources = "data.stream.sources[0]";
    for (set, expected) in [
        (
            "data.train.annotations=a --set data.train.images=b".to_string(),
            "`[data.train]` and `[data.stream]`",
        ),
        (
            "features.cache=memory --set features.dtype=f32 --set features.views=1".into(),
            "`[features]` does not go with",
        ),
        (
            "data.stream.epoch_samples=0".into(),
            "data.stream.epoch_samples",
        ),
        (
            "data.stream.epoch_samples=42 --set train.drop_last=true".into(),
            "no multiple of `train.batch_size`",
        ),
        (
            format!("{sources}.weight=-1.0"),
            "data.stream.sources[0].weight",
        ),
        (format!("{sources}.images=x"), "does not go with `shards`"),
        (
            format!("{sources}.shards=[1]"),
            "must be a path or a list of paths",
        ),
        (format!("{sources}.name=folder"), "`folder` is taken"),
        (format!("{sources}.wieght=1.0"), "wieght"),
        (
            "data.stream.sources[1].caption_field=x".into(),
            "goes with `shards`",
        ),
    ] {
        fails(
            &experiment,
            &format!("train --config debug.toml --out wrong --set {set}"),
            2,
            &[expected],
        );
    }
    let window = "train --config debug.toml --out window --set data.stream.shuffle_window=2";
    fails(&experiment, window, 2, &["shuffle_window", "at least 3"]);
    let shards =
        "train --config debug.toml --out none --set data.stream.sources[0].shards=none/*.tar";
    fails(&experiment, shards, 1, &["none/*.tar", "matches no file"]);
}
