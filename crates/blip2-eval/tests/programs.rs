//! SPICE's program is run as pycocoevalcap runs it. A stand-in takes its place: its models are 400 MB.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use blip2_eval::{Captions, Metric, Scorer, Spice};

/// A program can't be started while any process has it open for writing, and a process that another
/// test starts at that moment has inherited it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A `java` that answers with `body`, and the jar with its libraries.
fn stand_in(folder: &Path, body: &str) -> (PathBuf, PathBuf) {
    let (jar, java) = (folder.join("spice-1.0.jar"), folder.join("java"));
    fs::create_dir_all(folder.join("lib")).unwrap();
    for name in [
        "lib/stanford-corenlp-3.6.0.jar",
        "lib/stanford-corenlp-3.6.0-models.jar",
        "spice-1.0.jar",
    ] {
        fs::write(folder.join(name), "").unwrap();
    }
    fs::write(
        &java,
        format!("#!/bin/sh\n[ \"$1\" = -version ] && exit 0\n{body}\n"),
    )
    .unwrap();
    fs::set_permissions(&java, fs::Permissions::from_mode(0o755)).unwrap();
    (jar, java)
}

fn references() -> Captions {
    [("1", "A dog runs."), ("x", "Two cats!")]
        .map(|(id, caption)| (id.to_string(), vec![caption.to_string(), "It is.".into()]))
        .into()
}

fn score(jar: &Path, java: &Path) -> Result<Vec<f64>, String> {
    let spice = Spice::with_java(jar, java).map_err(|error| error.to_string())?;
    let scorer = Scorer::new(&references()).unwrap().with_spice(spice);
    let candidates =
        [("1", "A dog, running"), ("x", "cats")].map(|(id, text)| (id.into(), text.into()));
    let report = scorer
        .score(&candidates.into(), &[Metric::Spice])
        .map_err(|error| error.to_string())?;
    let mut scores = vec![report.scores.get("SPICE").unwrap()];
    scores.extend(
        report
            .per_image
            .values()
            .map(|image| image.get("SPICE").unwrap()),
    );
    Ok(scores)
}

#[test]
fn tokenized_captions_go_in_and_f_scores_come_out() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    // Arguments: -Xmx8G -jar JAR INPUT -out OUTPUT -subset -silent
    let body = format!(
        "[ \"$1 $2 $5 $7 $8\" = '-Xmx8G -jar -out -subset -silent' ] || exit 9
         cp \"$4\" {}/input.json
         echo '[{{\"image_id\": \"x\", \"scores\": {{\"All\": {{\"f\": 0.5, \"pr\": 1.0}}, \"Object\": {{\"f\": 0.1}}}}}},
                {{\"image_id\": \"1\", \"scores\": {{\"All\": {{\"f\": 0.25}}}}}}]' > \"$6\"",
        folder.path().display()
    );
    let (jar, java) = stand_in(folder.path(), &body);
    assert_eq!(score(&jar, &java).unwrap(), [0.375, 0.25, 0.5]);
    let input: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("input.json")).unwrap()).unwrap();
    let expected = serde_json::json!([
        {"image_id": "1", "test": "a dog running", "refs": ["a dog runs", "it is"]},
        {"image_id": "x", "test": "cats", "refs": ["two cats", "it is"]},
    ]);
    assert_eq!(input, expected);
}

#[test]
fn what_fails_is_said() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let (jar, java) = stand_in(folder.path(), "echo 'Could not load the model' >&2; exit 3");
    let error = score(&jar, &java).unwrap_err();
    assert!(
        error.contains("spice-1.0.jar failed") && error.contains("Could not load"),
        "{error}"
    );
    let (_, java) = stand_in(
        folder.path(),
        "echo '[{\"image_id\": \"1\", \"scores\": {\"All\": {\"f\": 1}}}]' > \"$6\"",
    );
    let error = score(&jar, &java).unwrap_err();
    assert!(error.contains("no score of image `x`"), "{error}");
    let error = score(&jar, &folder.path().join("no-java")).unwrap_err();
    assert!(error.contains("Java can't be started"), "{error}");
    fs::remove_file(folder.path().join("lib/stanford-corenlp-3.6.0-models.jar")).unwrap();
    let error = score(&jar, &java).unwrap_err();
    assert!(
        error.contains("corenlp-3.6.0-models.jar is not there"),
        "{error}"
    );
    let error = score(&folder.path().join("nothing.jar"), &java).unwrap_err();
    assert!(
        error.contains("SPICE can't be computed") && error.contains("nothing.jar"),
        "{error}"
    );
    let scorer = Scorer::new(&references()).unwrap();
    let candidates = references()
        .into_keys()
        .map(|id| (id, String::new()))
        .collect();
    let error = scorer
        .score(&candidates, &[Metric::Spice])
        .unwrap_err()
        .to_string();
    assert!(error.contains("spice-1.0.jar"), "{error}");
}
