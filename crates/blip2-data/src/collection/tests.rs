use std::fs;

use super::*;
use crate::stream::testing::{png, tar, write_shard};

fn open(source: &Path, part: &str, on_error: OnError) -> Result<Collection, DataError> {
    Collection::open(source, None, part.parse()?, SkipLog::new(on_error))
}

fn names(source: &Path, part: &str) -> Vec<String> {
    let collection = open(source, part, OnError::Fail).unwrap();
    let items = collection.items().iter();
    items.map(|item| item.name.clone()).collect()
}

#[test]
fn parts_are_disjoint_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("b/c")).unwrap();
    for name in [
        "b/c/2.PNG",
        "b/1.webp",
        "a.jpeg",
        "c.jpg",
        "b.txt",
        ".d.jpg",
        "e.tar",
    ] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let whole = ["a.jpeg", "b/1.webp", "b/c/2.PNG", "c.jpg"];
    assert_eq!(names(folder.path(), "0/1"), whole);
    assert_eq!(names(folder.path(), "0/3"), ["a.jpeg", "c.jpg"]);
    assert_eq!(names(folder.path(), "1/3"), ["b/1.webp"]);
    assert_eq!(names(folder.path(), "2/3"), ["b/c/2.PNG"]);
    assert!(
        names(folder.path(), "8/9").is_empty(),
        "more tasks than images"
    );
}

#[test]
fn only_parts_that_are_there_can_be_named() {
    assert_eq!("3/4".parse::<Part>().unwrap().to_string(), "3/4");
    for wrong in [
        "4/4", "0/0", "-1/4", "+1/4", "1", "1/", "/4", "a/b", "1/2/3", "",
    ] {
        let error = wrong.parse::<Part>().unwrap_err().to_string();
        assert!(error.contains(&format!("`{wrong}`")), "{error}");
    }
}

#[test]
fn several_tars_are_dealt_whole_and_one_by_its_images() {
    let folder = tempfile::tempdir().unwrap();
    for (shard, numbers) in [("0.tar", 0..3), ("1.tar", 3..5), ("2.tar", 5..6)] {
        write_shard(&folder.path().join(shard), numbers);
    }
    let pattern = folder.path().join("{0..2}.tar");
    let first = ["0.tar/000000.png", "0.tar/000001.png", "0.tar/000002.png"];
    let third = ["2.tar/000005.png"];
    assert_eq!(names(&pattern, "0/2"), [&first[..], &third[..]].concat());
    assert_eq!(
        names(folder.path(), "1/2"),
        ["1.tar/000003.png", "1.tar/000004.png"]
    );
    assert_eq!(names(&folder.path().join("*.tar"), "2/3"), third);
    assert_eq!(names(&folder.path().join("0.tar"), "1/2"), [first[1]]);
    // A task without a tar has nothing to do, and reads none.
    assert!(names(&folder.path().join("{0..2}.tar"), "5/6").is_empty());
}

#[test]
fn a_list_is_read_in_its_order_with_its_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.jsonl");
    let lines = "{\"image\": \"b.jpg\", \"caption\": \"passed over\"}\n\n\
                 {\"file_name\": \"a.jpg\", \"prompt\": \"a drawing of\"}\n";
    fs::write(&list, lines).unwrap();
    assert_eq!(names(&list, "0/1"), ["b.jpg", "a.jpg"]);
    let second = open(&list, "1/2", OnError::Fail).unwrap();
    assert_eq!(second.items()[0].prompt.as_deref(), Some("a drawing of"));
    let place = Place::File(folder.path().join("a.jpg"));
    assert_eq!(second.items()[0].place, place);
    let root = Some(Path::new("/elsewhere"));
    let elsewhere = Collection::open(&list, root, Part::WHOLE, SkipLog::new(OnError::Fail));
    let place = Place::File("/elsewhere/b.jpg".into());
    assert_eq!(elsewhere.unwrap().items()[0].place, place);
}

#[test]
fn what_can_not_be_listed_is_named_or_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.jsonl");
    let twice = folder.path().join("twice.tar");
    let cut = folder.path().join("cut.tar");
    let good = r#"{"image": "a.jpg"}"#;
    fs::write(
        &twice,
        tar([("a.png", png(0)), ("a.png", png(1))].into_iter()),
    )
    .unwrap();
    let bytes = tar([("a.png", png(0)), ("b.png", png(1))].into_iter());
    fs::write(&cut, &bytes[..1540]).unwrap();
    for (lines, expected) in [
        ("{}", "line 2: has neither"),
        ("[1", "line 2: "),
        (good, "line 2: `a.jpg` occurs twice"),
        (r#"{"image": "b", "file_name": "b"}"#, "line 2: has both"),
    ] {
        fs::write(&list, format!("{good}\n{lines}\n")).unwrap();
        let error = open(&list, "0/1", OnError::Fail).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let rest = open(&list, "0/1", OnError::Skip).unwrap();
        assert_eq!((rest.items().len(), rest.problems().len()), (1, 1));
    }
    for (tar, expected) in [(&twice, "occurs twice"), (&cut, "cut off in `b.png`")] {
        let error = open(tar, "0/1", OnError::Fail).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let rest = open(tar, "0/1", OnError::Skip).unwrap();
        assert_eq!((rest.items().len(), rest.problems().len()), (1, 1));
    }
}

#[test]
fn sources_without_an_image_say_so() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    fs::write(folder.path().join("empty.jsonl"), "\n").unwrap();
    let text_only = tar([("a.txt", vec![1])].into_iter());
    fs::write(folder.path().join("text.tar"), text_only).unwrap();
    fs::write(folder.path().join("photo.jpg"), "").unwrap();
    for (source, expected) in [
        ("empty", "no .jpg"),
        ("empty.jsonl", "no line"),
        ("text.tar", "no .jpg"),
        ("none", "none: "),
        ("none.jsonl", "none.jsonl: "),
        ("none-{0..1}.tar", "none-0.tar: "),
        ("photo.jpg", "--image"),
        ("{0..1.tar", "--images"),
        ("*.jpg", "photo.jpg is no .tar"),
    ] {
        let error = open(&folder.path().join(source), "0/1", OnError::Fail);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
