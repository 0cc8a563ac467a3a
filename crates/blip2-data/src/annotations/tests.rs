use std::fs;

use proptest::prelude::*;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("images")).unwrap();
        for name in ["a.jpg", "b.png"] {
            fs::write(folder.path().join("images").join(name), "pixels").unwrap();
        }
        Self(folder)
    }

    fn load(&self, name: &str, text: &str, on_error: OnError) -> Result<Loaded, DataError> {
        self.load_split(name, text, on_error, None)
    }

    fn load_split(
        &self,
        name: &str,
        text: &str,
        on_error: OnError,
        split: Option<&str>,
    ) -> Result<Loaded, DataError> {
        let file = self.0.path().join(name);
        fs::write(&file, text).unwrap();
        let options = LoadOptions {
            format: None,
            split: split.map(str::to_string),
            on_error,
            require_captions: true,
        };
        load(&file, &self.0.path().join("images"), &options)
    }
}

const COCO: &str = r#"{"images": [{"id": 7, "file_name": "a.jpg"}, {"id": "x", "file_name": "b.png"}],
  "annotations": [{"image_id": 7, "id": 1, "caption": " one "}, {"image_id": "x", "caption": "two"},
                  {"image_id": 7, "caption": "three"}]}"#;

#[test]
fn coco_joins_captions_to_images_and_keeps_ids_opaque() {
    let samples = Folder::new()
        .load("c.json", COCO, OnError::Fail)
        .unwrap()
        .samples;
    assert_eq!(samples.len(), 2);
    assert_eq!(samples[0].image_id, "7");
    assert_eq!(samples[0].captions, ["one", "three"]);
    assert_eq!(samples[1].image_id, "x");
}

#[test]
fn karpathy_gives_one_split_with_restval_in_train() {
    let text = r#"{"images": [
      {"filename": "a.jpg", "imgid": 0, "cocoid": 42, "split": "restval", "sentences": [{"raw": "one"}]},
      {"filename": "b.png", "imgid": 1, "split": "val", "sentences": [{"raw": "two"}]}]}"#;
    let folder = Folder::new();
    let load = |split| folder.load_split("k.json", text, OnError::Fail, Some(split));
    assert_eq!(load("train").unwrap().samples[0].image_id, "42");
    assert_eq!(load("val").unwrap().samples[0].image_id, "1");
    let error = load("test").unwrap_err().to_string();
    assert!(error.contains("`test` holds no image"), "{error}");
}

#[test]
fn jsonl_takes_one_or_many_captions_a_line() {
    let text = "{\"image\": \"a.jpg\", \"caption\": \"one\"}\n\n\
                {\"image\": \"b.png\", \"captions\": [\"two\", \"three\"]}\n\
                {\"image\": \"a.jpg\", \"caption\": \"four\"}\n";
    for name in ["d.jsonl", "d.json"] {
        let samples = Folder::new()
            .load(name, text, OnError::Fail)
            .unwrap()
            .samples;
        assert_eq!(samples[0].captions, ["one", "four"]);
        assert_eq!(samples[1].captions, ["two", "three"]);
    }
}

/// The shapes of LAVIS's `vg_caption.json` and `coco_karpathy_train.json`, and of its validation files.
#[test]
fn lists_of_lavis_join_captions_to_images() {
    let text = r#" [{"image": "a.jpg", "caption": "one"}, {"image": "b.png", "caption": ["two", "three"],
        "image_id": "coco_7", "dataset": "x"}, {"image": "a.jpg", "caption": "four"}]"#;
    let folder = Folder::new();
    let samples = folder.load("l.json", text, OnError::Fail).unwrap().samples;
    assert_eq!(samples.len(), 2);
    assert_eq!(samples[0].image_id, "a.jpg");
    assert_eq!(samples[0].captions, ["one", "four"]);
    assert_eq!(samples[1].image_id, "coco_7");
    assert_eq!(samples[1].captions, ["two", "three"]);
    for (text, expected) in [
        (r#"[{"image": "a.jpg", "caption": 3}]"#, "must be a text"),
        (
            r#"[{"image": "../a.jpg", "caption": "one"}]"#,
            "[0] (`../a.jpg`)",
        ),
        ("[1, 2]", "line 1"),
        ("[]", "holds no image"),
    ] {
        let error = folder.load("l.json", text, OnError::Fail).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("l.json") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn bad_entries_name_their_place_or_are_listed() {
    let image = |file: &str| format!(r#"{{"id": 9, "file_name": "{file}"}}"#);
    let file = |extra: &str, annotation: &str| {
        format!(
            r#"{{"images": [{{"id": 7, "file_name": "a.jpg"}}{extra}],
               "annotations": [{{"image_id": 7, "caption": "one"}}{annotation}]}}"#
        )
    };
    let nine = r#", {"image_id": 9, "caption": "nine"}"#;
    let with_image = |name: &str| file(&format!(", {}", image(name)), nine);
    let cases = [
        (file("", nine), "annotations[1].image_id: 9 is not"),
        (with_image("missing.jpg"), "missing.jpg"),
        (with_image("../c.json"), "climbs out"),
        (with_image("/etc/hostname"), "climbs out"),
        (with_image(""), "climbs out"),
        (
            file("", r#", {"image_id": 7, "caption": "  "}"#),
            "images[0] caption 1: is empty",
        ),
        (
            file(&format!(", {}", image("b.png")), ""),
            "images[1]: the image has no caption",
        ),
        (
            file(r#", {"id": 7, "file_name": "b.png"}"#, "").replace(
                "\"id\": 7, \"file_name\": \"b",
                "\"id\": \"7\", \"file_name\": \"b",
            ),
            "no caption",
        ),
    ];
    for (text, expected) in cases {
        let folder = Folder::new();
        let error = folder
            .load("c.json", &text, OnError::Fail)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("c.json") && error.contains(expected),
            "{error}"
        );
        let loaded = folder.load("c.json", &text, OnError::Skip).unwrap();
        assert_eq!(
            (loaded.samples.len(), loaded.skipped.len()),
            (1, 1),
            "{text}"
        );
    }
}

#[test]
fn broken_files_say_where() {
    let cases = [
        ("{\"images\": [", "line 1"),
        ("{\"images\": 3, \"annotations\": []}", "line 1 column"),
        ("{\"images\": [], \"annotations\": []}", "holds no image"),
        ("", "line 1"),
        ("{\"pictures\": []}", "image"),
    ];
    for (text, expected) in cases {
        let error = Folder::new()
            .load("c.json", text, OnError::Fail)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("c.json") && error.contains(expected),
            "{text}: {error}"
        );
    }
    let folder = Folder::new();
    let file = folder.0.path().join("bytes.json");
    fs::write(&file, [b'{', 0xff]).unwrap();
    let options = LoadOptions {
        format: None,
        split: None,
        on_error: OnError::Skip,
        require_captions: true,
    };
    let error = load(&file, folder.0.path(), &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("UTF-8"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_refused() {
    let folder = Folder::new();
    let secret = folder.0.path().join("secret.jpg");
    fs::write(&secret, "pixels").unwrap();
    std::os::unix::fs::symlink(&secret, folder.0.path().join("images/link.jpg")).unwrap();
    let text = r#"{"image": "link.jpg", "caption": "one"}"#;
    let error = folder
        .load("d.jsonl", text, OnError::Fail)
        .unwrap_err()
        .to_string();
    assert!(error.contains("leads out"), "{error}");
}

proptest! {
    /// Whatever the name: what is resolved lies inside, and nothing panics.
    #[test]
    fn resolved_paths_lie_inside(name in "[a./\\\\]{0,12}|\\PC{0,12}") {
        let folder = Folder::new();
        let images = folder.0.path().join("images");
        let root = images.canonicalize().unwrap();
        if let Ok(path) = resolve(&images, &root, &name) {
            prop_assert!(path.canonicalize().unwrap().starts_with(&root));
        }
    }
}
