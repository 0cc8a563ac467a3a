//! Bad input: one clear line, the right exit code, nothing lost.

use std::fs;

use blip2_tests::{Experiment, expect_code, fails, read_json, stderr};

const TRAIN: &str = "train --config debug.toml --out run";

#[test]
fn wrong_configs_name_file_and_field_with_code_2() {
    let experiment = Experiment::new();
    for (set, expected) in [
        ("train.epoch=3", "epoch"),
        (
            "model.multimodal_backbone.num_attention_heads=3",
            "hidden_size",
        ),
        (
            "model.vision_backbone.architecture.patch_size=7",
            "image_size",
        ),
        (
            "model.vision_backbone.architecture.num_attention_heads=5",
            "hidden_size",
        ),
        (
            "model.multimodal_backbone.encoder_hidden_size=8",
            "encoder_hidden_size",
        ),
        (
            "model.data_preprocessor.size=[16,16]",
            "data_preprocessor.size",
        ),
        ("model.max_txt_len=61", "max_txt_len"),
        ("train.batch_size=0", "train.batch_size"),
        ("train.epochs=many", "train.epochs"),
        ("optimizer.betas=[0.9,1.5]", "optimizer.betas"),
        ("data.on_error=maybe", "data.on_error"),
        ("task=paint", "task"),
    ] {
        let run = format!("{TRAIN}-{} --set {set}", expected.replace('.', "-"));
        fails(&experiment, &run, 2, &[expected]);
    }
    fails(&experiment, "train --config none.toml", 2, &["none.toml"]);
    fs::write(experiment.path("broken.toml"), "task = \"caption\nseed").unwrap();
    fails(
        &experiment,
        "train --config broken.toml",
        2,
        &["broken.toml"],
    );
    fails(
        &experiment,
        &format!("{TRAIN} --set nothing"),
        2,
        &["--set nothing"],
    );
    fails(
        &experiment,
        "train --resume data",
        2,
        &["data", "config.toml"],
    );
}

#[test]
fn wrong_files_name_themselves_with_code_1() {
    let experiment = Experiment::new();
    let missing = "data.train.annotations=none.json";
    fails(
        &experiment,
        &format!("{TRAIN} --set {missing}"),
        1,
        &["none.json"],
    );
    fails(
        &experiment,
        &format!("{TRAIN}-2 --set model.tokenizer=nowhere"),
        1,
        &["nowhere"],
    );
    expect_code(&experiment.train("good", "--set train.epochs=0"), 0);
    fails(
        &experiment,
        "caption --model good --image none.jpg",
        1,
        &["none.jpg"],
    );
    fails(
        &experiment,
        "caption --model good --image data/images/000001.jpg",
        1,
        &["no whole checkpoint"],
    );
}

#[cfg(unix)]
#[test]
fn an_unwritable_output_folder_is_named() {
    let experiment = Experiment::new();
    // A file where a folder should be stops root as well.
    fs::write(experiment.path("file"), "").unwrap();
    fails(
        &experiment,
        "train --config debug.toml --out file/run",
        1,
        &["file/run"],
    );
}

#[test]
fn a_run_folder_is_never_overwritten() {
    let experiment = Experiment::new();
    expect_code(&experiment.train("run", "--set train.epochs=0"), 0);
    fails(&experiment, TRAIN, 2, &["already holds a run", "--resume"]);
}

/// Every kind of bad image or annotation: by default the run names it and stops before it starts;
/// with `skip` it trains on the rest, and lists what it left out.
#[test]
fn bad_data_stops_the_run_or_is_skipped_counted_and_listed() {
    let experiment = Experiment::new();
    let images = experiment.path("data/images");
    let good = fs::read(images.join("000002.png")).unwrap();
    let mut huge = good.clone();
    huge[16..20].copy_from_slice(&50_000u32.to_be_bytes());
    huge[20..24].copy_from_slice(&50_000u32.to_be_bytes());
    let crc = crc32(&huge[12..29]);
    huge[29..33].copy_from_slice(&crc.to_be_bytes());
    fs::write(images.join("huge.png"), huge).unwrap();
    fs::write(images.join("text.png"), "no image").unwrap();
    fs::write(images.join("cut.png"), &good[..good.len() / 2]).unwrap();

    let good_lines: String = (1..=8)
        .map(|id| {
            let extension = if id % 2 == 0 { "png" } else { "jpg" };
            format!("{{\"image\": \"{id:06}.{extension}\", \"caption\": \"a dog\"}}\n")
        })
        .collect();
    let bad = [
        ("{\"image\": \"none.png\", \"caption\": \"a\"}", "none.png"),
        ("{\"image\": \"huge.png\", \"caption\": \"a\"}", "huge.png"),
        ("{\"image\": \"text.png\", \"caption\": \"a\"}", "text.png"),
        ("{\"image\": \"cut.png\", \"caption\": \"a\"}", "cut.png"),
        (
            "{\"image\": \"../secret.png\", \"caption\": \"a\"}",
            "climbs out",
        ),
        ("{\"image\": \"000009.jpg\", \"caption\": \" \"}", "empty"),
        ("{\"image\": \"000010.png\"}", "no caption"),
    ];
    for (index, (line, expected)) in bad.iter().enumerate() {
        fs::write(
            experiment.path("train.jsonl"),
            format!("{good_lines}{line}\n"),
        )
        .unwrap();
        let run = format!(
            "{TRAIN}-{index} --set data.train.annotations=train.jsonl --set train.epochs=1"
        );
        let code = 1;
        fails(&experiment, &run, code, &[expected]);
    }
    let all: String = bad.iter().map(|(line, _)| format!("{line}\n")).collect();
    fs::write(experiment.path("train.jsonl"), format!("{good_lines}{all}")).unwrap();
    let run = format!(
        "{TRAIN} --set data.train.annotations=train.jsonl --set train.epochs=1 --set data.on_error=skip"
    );
    let output = experiment.blip2(&run);
    expect_code(&output, 0);
    // An empty caption is listed, and then that its image has none.
    let text = stderr(&output);
    assert!(
        text.contains(&format!("{} items were skipped", bad.len() + 1)),
        "{text}"
    );
    for file in ["run/report.html", "run/log.txt"] {
        let text = fs::read_to_string(experiment.path(file)).unwrap();
        for (_, expected) in bad {
            assert!(text.contains(expected), "{file}: {expected}");
        }
    }
    assert!(read_json(&experiment.path("run/scores.json"))["splits"]["test"].is_object());
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// A disk that takes no more than a few kilobytes a file, as far as the process can tell: the run goes
/// on to its end, and the checkpoint before stays what it was.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing() {
    let experiment = Experiment::new();
    expect_code(&experiment.train("run", ""), 0);
    let checkpoints = experiment.path("run/checkpoints");
    fs::remove_dir_all(checkpoints.join("step-16")).unwrap();
    let kept = fs::read(checkpoints.join("step-15/model.bpk")).unwrap();
    let whole = blip2_tests::metrics(&experiment.path("run"));

    // Without the signal, a write beyond the limit is an error like any other.
    let output = experiment.limited("trap '' XFSZ; ulimit -f 16", "train --resume run");
    // It trains and scores to the end; the page with its images is too large.
    expect_code(&output, 1);
    let text = stderr(&output);
    assert!(
        text.contains("checkpoint of step 16 is not saved") && text.contains("report.html"),
        "{text}"
    );
    assert_eq!(
        fs::read(checkpoints.join("step-15/model.bpk")).unwrap(),
        kept
    );
    assert!(!checkpoints.join("step-16").exists());
    assert!(!checkpoints.join(".step-16.tmp").exists());
    assert_eq!(blip2_tests::metrics(&experiment.path("run")), whole);

    // With room again, it is as if the disk had never been full.
    expect_code(&experiment.blip2("train --resume run"), 0);
    assert!(checkpoints.join("step-16/model.bpk").exists());
}

#[test]
fn a_prompt_that_leaves_no_room_for_captions_is_named() {
    let experiment = Experiment::new();
    let run = format!("{TRAIN} --set model.max_txt_len=3 --set model.prompt=there-is-a-big-dog");
    fails(&experiment, &run, 1, &["model.max_txt_len", "prompt"]);
}
