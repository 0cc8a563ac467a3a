//! `blip2 caption --images`: a large set of images in parts, interrupted and gone on with.

mod sources;
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use blip2_tests::{Experiment, expect_code, fails, stderr, stdout};
use serde_json::{Value, json};

const CAPTION: &str = "caption --model run --num-beams 2 --num-captions 2 --max-new-tokens 6 \
                       --batch-size 5";

/// A small captioner, and 16 images in folders.
fn experiment() -> Experiment {
    let experiment = Experiment::new();
    // One that learned has clear favourites; a random one has ties, which rounding breaks one way in
    // one batch and another way in the next.
    let output = experiment.train("run", "--set model.text_backbone.frozen=false");
    expect_code(&output, 0);
    let mut images: Vec<_> = fs::read_dir(experiment.path("data/images"))
        .expect("images")
        .map(|entry| entry.expect("an image").path())
        .collect();
    images.sort();
    fs::create_dir_all(experiment.path("photos/more")).expect("a folder");
    for (number, image) in images.iter().take(16).enumerate() {
        let folder = ["photos", "photos/more"][number % 2];
        let name = image.file_name().expect("a name");
        fs::copy(image, experiment.path(folder).join(name)).expect("a copy");
    }
    experiment
}

fn caption(experiment: &Experiment, arguments: &str) -> String {
    let output = experiment.blip2(&format!("{CAPTION} {arguments}"));
    expect_code(&output, 0);
    assert_eq!(stdout(&output).is_empty(), arguments.contains("--out"));
    stderr(&output)
}

fn read(experiment: &Experiment, name: &str) -> String {
    fs::read_to_string(experiment.path(name)).expect(name)
}

fn parsed(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

/// Captions and tokens by image. Scores are rounded in another way in other batches.
fn by_image(lines: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let entries = lines.iter().map(|line| {
        let captions = line["captions"].as_array().expect("captions").iter();
        let captions = captions.map(|caption| json!([caption["caption"], caption["token_ids"]]));
        (
            line["image"].as_str().expect("a name").to_string(),
            captions.collect(),
        )
    });
    entries.collect()
}

#[test]
fn large_sets_are_captioned_in_parts() {
    let experiment = experiment();
    let log = caption(&experiment, "--images photos --out whole.jsonl");
    assert!(
        log.contains("16/16 images, ") && log.contains("images/s"),
        "{log}"
    );
    let whole = read(&experiment, "whole.jsonl");

    parts(&experiment, &whole);
    resume(&experiment, &whole);
    other_settings(&experiment);
    sources::lists(&experiment, &whole);
    sources::tars(&experiment, &whole);
    tables::tables(&experiment, &whole);
    scores(&experiment);
    unreadable(&experiment, &whole);
    #[cfg(unix)]
    interrupted(&experiment);
}

fn parts(experiment: &Experiment, whole: &str) {
    let lines = parsed(whole);
    let names: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["image"].as_str())
        .collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!((names.len(), &names), (16, &sorted));
    assert!(names[15].starts_with("more/"), "{names:?}");
    let mut together = Vec::new();
    for shard in ["0/2", "1/2"] {
        let out = format!("out/{}.jsonl", shard.replace('/', "-of-"));
        let arguments = format!("--images photos --shard {shard} --out {out}");
        caption(experiment, &arguments);
        let part = parsed(&read(experiment, &out));
        assert_eq!(part.len(), 8);
        together.extend(part);
    }
    assert_eq!(by_image(&together), by_image(&lines));
    // More tasks than images: this one has nothing to do, and needs no model for it.
    let none = "caption --model none --images photos --shard 16/17 --out none.jsonl";
    expect_code(&experiment.blip2(none), 0);
    assert_eq!(read(experiment, "none.jsonl"), "");
    // To stdout, the same lines.
    let output = experiment.blip2(&format!("{CAPTION} --images photos --json"));
    assert_eq!(stdout(&output), whole);
}

fn resume(experiment: &Experiment, whole: &str) {
    let run = "--images photos --out killed.jsonl";
    caption(experiment, run);
    let killed = experiment.path("killed.jsonl");
    let second = whole.match_indices('\n').nth(1).expect("lines").0 + 1;
    // Between two lines, in one, at the very start; in the middle of a batch each time.
    for (length, left) in [(second, 14), (second + 9, 14), (3, 16), (0, 16)] {
        fs::write(&killed, &whole[..length]).expect("a torn file");
        let log = caption(experiment, run);
        assert!(log.contains(&format!("{left}/{left} images, ")), "{log}");
        assert_eq!(read(experiment, "killed.jsonl"), whole);
    }
    let log = caption(experiment, run);
    assert!(log.contains("captions of 16 images"), "{log}");
    assert!(!log.contains("images/s"), "nothing was left: {log}");
    assert_eq!(read(experiment, "killed.jsonl"), whole);

    for (line, expected) in [
        (
            "{\"image\": \"other.jpg\"}\n",
            "line 1: `other.jpg` is no image",
        ),
        ("{}\n", "line 1: missing field `image`"),
    ] {
        fs::write(&killed, line).expect("a wrong file");
        let command = format!("{CAPTION} {run}");
        fails(experiment, &command, 1, &["killed.jsonl", expected]);
        assert_eq!(read(experiment, "killed.jsonl"), line, "nothing is lost");
    }
}

fn other_settings(experiment: &Experiment) {
    let common = "caption --model run --num-captions 2 --max-new-tokens 6";
    for (arguments, expected) in [
        (
            "--num-beams 3 --images photos",
            "--num-beams 2, now it is 3",
        ),
        ("--num-beams 2 --images data", "--images \"photos\""),
        (
            "--num-beams 2 --images photos --prompt a",
            "--prompt not given",
        ),
        (
            "--num-beams 2 --images photos --shard 1/2",
            "--shard \"0/1\"",
        ),
        ("--images photos", "--num-beams 2, now it is not given"),
    ] {
        let command = format!("{common} {arguments} --out whole.jsonl");
        fails(experiment, &command, 2, &["whole.jsonl", expected]);
    }
    fs::write(experiment.path("mine.jsonl"), "{\"image\": \"a\"}\n").expect("a file");
    let command = format!("{CAPTION} --images photos --out mine.jsonl");
    fails(
        experiment,
        &command,
        1,
        &["mine.jsonl", "mine.jsonl.run.json"],
    );

    for (arguments, expected) in [
        ("--images photos --shard 2/2", "`2/2` is no I/N"),
        ("--images photos --shard two", "`two` is no I/N"),
        ("--images photos --out captions.csv", ".jsonl or .parquet"),
        ("--images photos/more/../../debug.toml", "--images"),
        ("--images photos --image-root data", "--image-root"),
    ] {
        let output = experiment.blip2(&format!("{CAPTION} {arguments}"));
        expect_code(&output, 2);
        let text = stderr(&output);
        assert!(text.contains(expected), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    for wrong in [
        "--images photos --image photos/a.jpg",
        "--shard 0/2 --image a.jpg",
    ] {
        expect_code(&experiment.blip2(&format!("{CAPTION} {wrong}")), 2);
    }
    // A start that came to nothing binds nobody.
    let slip = "caption --model slip --images photos --out slip.jsonl";
    fails(experiment, slip, 2, &["slip"]);
    caption(experiment, "--images photos --out slip.jsonl");
    fs::create_dir(experiment.path("empty")).expect("a folder");
    for (source, expected) in [("nowhere", "nowhere: "), ("empty", "holds no image")] {
        fails(
            experiment,
            &format!("{CAPTION} --images {source} --out no.jsonl"),
            1,
            &[source, expected],
        );
        assert!(!experiment.path("no.jsonl").exists());
    }
}

/// Two tasks' captions of the test split, scored like the run's own.
fn scores(experiment: &Experiment) {
    let references = "data/annotations/captions_test.json";
    let annotations: Value =
        serde_json::from_str(&read(experiment, references)).expect("annotations");
    let images = annotations["images"].as_array().expect("images").iter();
    let list: Vec<String> = images
        .map(|image| json!({"image": image["file_name"]}).to_string())
        .collect();
    fs::write(experiment.path("test.jsonl"), list.join("\n")).expect("a list");
    for shard in 0..2 {
        let arguments = format!("--shard {shard}/2 --out test-{shard}.jsonl");
        let run =
            format!("caption --model run --images test.jsonl --image-root data/images {arguments}");
        expect_code(&experiment.blip2(&run), 0);
    }
    let score = format!("score --references {references} --json --candidates");
    let output = experiment.blip2(&format!("{score} test-0.jsonl test-1.jsonl"));
    expect_code(&output, 0);
    let scores: Value = serde_json::from_str(&stdout(&output)).expect("scores");
    let of_run: Value = serde_json::from_str(&read(experiment, "run/scores.json")).expect("scores");
    assert_eq!(scores["scores"], of_run["splits"]["test"]["scores"]);
    let half = format!("{score} test-0.jsonl");
    fails(experiment, &half, 1, &["test-0.jsonl"]);
    let foreign = format!("{score} test-0.jsonl whole.jsonl");
    fails(
        experiment,
        &foreign,
        1,
        &["whole.jsonl: line 1: ", "no image of"],
    );
    let mixed = format!("{score} test-0.jsonl run/captions/test.json");
    fails(experiment, &mixed, 2, &["--candidates"]);
}

fn unreadable(experiment: &Experiment, whole: &str) {
    fs::write(experiment.path("photos/more/0.jpg"), "no image").expect("a file");
    let run = "--images photos --out damaged.jsonl";
    fails(
        experiment,
        &format!("{CAPTION} {run}"),
        1,
        &["photos/more/0.jpg", "not a readable image"],
    );
    let before = parsed(&read(experiment, "damaged.jsonl")).len();
    assert_eq!(before, 5, "whole batches before the damage");
    let skip = format!("{run} --on-error skip");
    let log = caption(experiment, &skip);
    assert!(log.contains("skipped 1;"), "{log}");
    let lines = parsed(&read(experiment, "damaged.jsonl"));
    assert_eq!(by_image(&lines), by_image(&parsed(whole)));
    let skipped = parsed(&read(experiment, "damaged.skipped.jsonl"));
    assert_eq!(
        (skipped.len(), &skipped[0]["image"]),
        (1, &json!("more/0.jpg"))
    );
    let reason = skipped[0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("not a readable image"), "{reason}");
    // It is not tried again, unless its name is taken off the list.
    let log = caption(experiment, run);
    assert!(
        log.contains("skipped 1;") && !log.contains("images/s"),
        "{log}"
    );
    fs::remove_file(experiment.path("damaged.skipped.jsonl")).expect("the list");
    let image = experiment
        .path("photos")
        .join(lines[0]["image"].as_str().expect("a name"));
    fs::copy(image, experiment.path("photos/more/0.jpg")).expect("a repair");
    caption(experiment, run);
    let lines = parsed(&read(experiment, "damaged.jsonl"));
    assert_eq!(
        (lines.len(), &lines[16]["image"]),
        (17, &json!("more/0.jpg"))
    );
    fs::remove_file(experiment.path("photos/more/0.jpg")).expect("the file");
}

/// SIGTERM, as a queue sends it before its time is over.
#[cfg(unix)]
fn interrupted(experiment: &Experiment) {
    let run = "caption --model run --images data/images --num-beams 8 --min-new-tokens 20 \
               --max-new-tokens 20 --batch-size 2 --out";
    expect_code(&experiment.blip2(&format!("{run} clean.jsonl")), 0);
    let clean = read(experiment, "clean.jsonl");
    let child = experiment.start(&format!("{run} stopped.jsonl"));
    let out = experiment.path("stopped.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&out).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline, "no caption");
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = Command::new("kill").arg(child.id().to_string()).status();
    assert!(kill.expect("kill").success());
    let output = child.wait_with_output().expect("the process ends");
    expect_code(&output, 130);
    let log = stderr(&output);
    assert!(log.contains("the same command goes on"), "{log}");
    let text = read(experiment, "stopped.jsonl");
    assert!(text.ends_with('\n') && text.len() < clean.len());
    assert_eq!(text.lines().count() % 2, 0, "whole batches");

    let file = fs::File::open(&out).expect("the file");
    file.lock().expect("its lock");
    let run = format!("{run} stopped.jsonl");
    fails(experiment, &run, 1, &["stopped.jsonl", "another process"]);
    drop(file);
    expect_code(&experiment.blip2(&run), 0);
    assert_eq!(read(experiment, "stopped.jsonl"), clean);
}
