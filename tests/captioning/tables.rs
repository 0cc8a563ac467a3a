//! Parquet files, read back.

use std::fs;

use blip2_tests::{Experiment, fails};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{ListAccessor, Row, RowAccessor};
use serde_json::json;

use super::{CAPTION, caption, parsed};

fn rows(experiment: &Experiment, name: &str) -> Vec<Row> {
    let file = fs::File::open(experiment.path(name)).expect("the table");
    let reader = SerializedFileReader::new(file).expect("a Parquet file");
    assert!(reader.metadata().file_metadata().num_rows() > 0);
    let rows = reader.get_row_iter(None).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

pub(super) fn tables(experiment: &Experiment, whole: &str) {
    let run = "--images photos --out table.parquet";
    let command = format!("{CAPTION} {run}");
    caption(experiment, run);
    let made = fs::read(experiment.path("table.parquet")).expect("the table");
    let partial = experiment.path("table.parquet.partial.jsonl");
    assert!(!partial.exists() && !experiment.path("table.parquet.tmp").exists());
    let mut rows = rows(experiment, "table.parquet").into_iter();
    for line in parsed(whole) {
        for (rank, caption) in (0..).zip(line["captions"].as_array().expect("captions")) {
            let row = rows.next().expect("a row a caption");
            assert_eq!(
                row.get_string(0).expect("image"),
                &line["image"].as_str().unwrap()
            );
            assert_eq!(row.get_int(1).expect("rank"), rank);
            assert_eq!(
                row.get_string(2).expect("caption"),
                &caption["caption"].as_str().unwrap()
            );
            assert_eq!(row.get_double(3).ok(), caption["score"].as_f64());
            let ids = row.get_list(4).expect("token_ids");
            let ids: Vec<i32> = (0..ids.len()).map(|at| ids.get_int(at).unwrap()).collect();
            assert_eq!(json!(ids), caption["token_ids"]);
        }
    }
    assert!(rows.next().is_none());

    assert!(caption(experiment, run).contains("is finished"));
    let other = command.replace("--num-beams 2", "--num-beams 3");
    fails(experiment, &other, 2, &["table.parquet", "--num-beams 2"]);
    // Killed before its end, and between the table and the end.
    for length in [whole.len() / 3, whole.len()] {
        fs::write(&partial, &whole[..length]).expect("the lines");
        caption(experiment, run);
        assert_eq!(
            fs::read(experiment.path("table.parquet")).expect("the table"),
            made
        );
        assert!(!partial.exists());
    }
}
