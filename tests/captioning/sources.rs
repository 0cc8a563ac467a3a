//! Lists and tar shards.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use blip2_tests::Experiment;
use serde_json::{Value, json};

use super::{by_image, caption, parsed, read};

pub(super) fn lists(experiment: &Experiment, whole: &str) {
    let lines = parsed(whole);
    let mut list = String::new();
    for line in lines.iter().rev() {
        list += &format!(
            "{}\n",
            json!({"file_name": line["image"], "caption": "not read"})
        );
    }
    list += &format!(
        "{}\n",
        json!({"image": experiment.path("photos/more/../more/").join(
        Path::new(lines[15]["image"].as_str().expect("a name")).file_name().expect("a name"),
    ), "prompt": "a"})
    );
    fs::write(experiment.path("photos/list.jsonl"), &list).expect("a list");
    caption(experiment, "--images photos/list.jsonl --out list.jsonl");
    let listed = parsed(&read(experiment, "list.jsonl"));
    assert_eq!(
        listed[0]["image"], lines[15]["image"],
        "in the list's order"
    );
    assert_eq!(by_image(&listed[..16]), by_image(&lines));
    // A prompt of its own counts.
    assert_ne!(listed[16]["captions"], listed[0]["captions"]);

    fs::rename(
        experiment.path("photos/list.jsonl"),
        experiment.path("list-2.jsonl"),
    )
    .expect("a move");
    let arguments = "--images list-2.jsonl --image-root photos --shard 1/3 --out third.jsonl";
    caption(experiment, arguments);
    assert_eq!(parsed(&read(experiment, "third.jsonl")).len(), 6);
}

/// The images of the whole run in `count` tars, with texts between them.
fn write_tars(experiment: &Experiment, folder: &str, whole: &str, count: usize) {
    fs::create_dir(experiment.path(folder)).expect("a folder");
    let lines = parsed(whole);
    for (number, lines) in lines.chunks(lines.len().div_ceil(count)).enumerate() {
        let path = experiment.path(&format!("{folder}/shard-{number:03}.tar"));
        let mut tar = tar::Builder::new(fs::File::create(path).expect("a tar"));
        for line in lines {
            let name = line["image"].as_str().expect("a name");
            let bytes = fs::read(experiment.path("photos").join(name)).expect("an image");
            for (name, bytes) in [(name, &bytes[..]), (&format!("{name}.txt"), b"text")] {
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, name, bytes).expect("an entry");
            }
        }
        tar.finish().expect("its end");
    }
}

pub(super) fn tars(experiment: &Experiment, whole: &str) {
    write_tars(experiment, "tars", whole, 4);
    let without_tar = |lines: &[Value]| -> BTreeMap<String, Vec<Value>> {
        let lines = by_image(lines).into_iter();
        lines
            .map(|(name, captions)| {
                let (tar, entry) = name.split_once('/').expect("shard.tar/entry");
                assert!(
                    tar.starts_with("shard-00") && tar.ends_with(".tar"),
                    "{name}"
                );
                (entry.to_string(), captions)
            })
            .collect()
    };
    let expected = by_image(&parsed(whole));
    let mut together = Vec::new();
    for shard in ["0/3", "1/3", "2/3"] {
        let out = format!("tars-{}.jsonl", &shard[..1]);
        let arguments = format!("--images tars/shard-{{000..003}}.tar --shard {shard} --out {out}");
        caption(experiment, &arguments);
        together.push(parsed(&read(experiment, &out)));
    }
    let counts: Vec<usize> = together.iter().map(Vec::len).collect();
    assert_eq!(counts, [8, 4, 4], "whole tars");
    assert_eq!(without_tar(&together.concat()), expected);
    caption(experiment, "--images tars --out tars.jsonl");
    assert_eq!(
        without_tar(&parsed(&read(experiment, "tars.jsonl"))),
        expected
    );
    caption(
        experiment,
        "--images tars/shard-002.tar --shard 1/2 --out one.jsonl",
    );
    assert_eq!(
        parsed(&read(experiment, "one.jsonl")).len(),
        2,
        "one by its images"
    );
}
