//! A user's own photographs, by path.

use std::fs;
use std::path::Path;

use blip2_tests::{Experiment, expect_code, read_json, stdout};

const PHOTOGRAPHS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/photographs");

/// The debug config with the data tables of `tables` instead of its own.
fn own_config(experiment: &Experiment, tables: &str) {
    let config = fs::read_to_string(experiment.path("debug.toml")).unwrap();
    let start = config.find("[data]").unwrap();
    let end = config.find("[optimizer]").unwrap();
    let config = format!("{}{tables}\n{}", &config[..start], &config[end..]);
    fs::write(experiment.path("own.toml"), config).unwrap();
}

fn tables(annotations: &str) -> String {
    let split = format!("annotations = \"{annotations}\"\nimages = \"photos\"\n");
    format!(
        "[data]\nnum_workers = 1\ncaptions = \"all\"\n[data.train]\n{split}[data.val]\n{split}\
         [[data.test]]\nname = \"mine\"\n{split}"
    )
}

/// JSONL and COCO JSON over photographs of different sizes; `cargo xtask test` fetches them, and
/// says so where it can't. Without them only this test does nothing.
#[test]
fn own_photographs_train_and_get_captions() {
    if !Path::new(PHOTOGRAPHS).join("flower.jpg").exists() {
        eprintln!("left out: {PHOTOGRAPHS} is not there; `cargo xtask test` fetches it");
        return;
    }
    let experiment = Experiment::new();
    fs::create_dir(experiment.path("photos")).unwrap();
    for name in ["china.jpg", "flower.jpg"] {
        fs::copy(
            Path::new(PHOTOGRAPHS).join(name),
            experiment.path("photos").join(name),
        )
        .unwrap();
    }
    let jsonl = "{\"image\": \"china.jpg\", \"captions\": [\"a temple\", \"an old temple in china\"]}\n\
                 {\"image\": \"flower.jpg\", \"caption\": \"a red flower\"}\n";
    fs::write(experiment.path("captions.jsonl"), jsonl).unwrap();
    let coco = r#"{"images": [{"id": "c", "file_name": "china.jpg"}, {"id": 5, "file_name": "flower.jpg"}],
        "annotations": [{"image_id": "c", "caption": "a temple"}, {"image_id": 5, "caption": "a flower"}]}"#;
    fs::write(experiment.path("captions.json"), coco).unwrap();
    for (annotations, ids) in [
        ("captions.jsonl", ["\"china.jpg\"", "\"flower.jpg\""]),
        ("captions.json", ["\"c\"", "5"]),
    ] {
        own_config(&experiment, &tables(annotations));
        let run = format!("run-{}", annotations.replace('.', "-"));
        let train = format!(
            "train --config own.toml --set train.batch_size=2 --out {run} --set train.epochs=1"
        );
        expect_code(&experiment.blip2(&train), 0);
        let results = read_json(&experiment.path(&run).join("captions/mine.json"));
        let found: Vec<String> = results
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["image_id"].to_string())
            .collect();
        assert_eq!(found, ids);
        let caption = format!("caption --model {run} --image photos/flower.jpg");
        let output = experiment.blip2(&caption);
        expect_code(&output, 0);
        assert_eq!(stdout(&output).lines().count(), 1);
    }
}
