//! What can be wrong with shards, samples and options.

use std::fs;

use super::*;
use crate::stream::testing::{png, tar};

/// Every kind of bad shard and sample: by default it is named and ends the run; with `skip` it is
/// counted and named, and all that is good comes.
#[test]
fn bad_input_ends_the_run_or_is_skipped_counted_and_named() {
    let good = |number: usize| {
        let text = format!("{number}").into_bytes();
        [
            (format!("{number}.png"), png(number)),
            (format!("{number}.txt"), text),
        ]
    };
    let shard = |extra: &[(&str, &[u8])]| {
        let before = good(1).into_iter().chain(good(2));
        let bad = extra
            .iter()
            .map(|(name, bytes)| (name.to_string(), bytes.to_vec()));
        let entries: Vec<(String, Vec<u8>)> = before.chain(bad).chain(good(3)).collect();
        tar(entries
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.clone())))
    };
    let (png, json) = (png(9), &b"{\"caption\": 7}"[..]);
    let whole = shard(&[]);
    let mut damaged = whole.clone();
    damaged[5 * 1024] ^= 1;
    let cases: Vec<(&str, Vec<u8>, usize)> = vec![
        ("no caption", shard(&[("9.png", &png)]), 3),
        ("no image", shard(&[("9.txt", b"nine")]), 3),
        ("climbs out", shard(&[("../9.png", &png)]), 3),
        ("climbs out", shard(&[("/9.txt", b"nine")]), 3),
        (
            "caption is empty",
            shard(&[("9.png", &png), ("9.txt", b" \n")]),
            3,
        ),
        ("no UTF-8", shard(&[("9.png", &png), ("9.txt", b"\xff")]), 3),
        (
            "no text in `caption`",
            shard(&[("9.png", &png), ("9.json", json)]),
            3,
        ),
        ("its .json", shard(&[("9.png", &png), ("9.json", b"{")]), 3),
        (
            "not a readable image",
            shard(&[("9.png", &png[..40]), ("9.txt", b"nine")]),
            3,
        ),
        (
            "not a readable image",
            shard(&[("9.png", b""), ("9.txt", b"nine")]),
            3,
        ),
        (
            "is cut off in `3.txt`",
            whole[..whole.len() - 1536].to_vec(),
            2,
        ),
        ("is cut off", whole[..whole.len() - 1024].to_vec(), 3),
        ("is no tar header", damaged, 2),
    ];
    for (expected, bytes, left) in cases {
        let data = Data::new(&[0]);
        fs::write(&data.shards[0], bytes).unwrap();
        let read = |on_error| {
            let skips = SkipLog::new(on_error);
            let setting = Setting {
                window: 1,
                skips: skips.clone(),
                ..Setting::default()
            };
            let stream = setting
                .stream(vec![data.source("x", 1.0, on_error).unwrap()])
                .unwrap();
            let items: Vec<usize> = (0..8).collect();
            (stream.batch(1, &items, &Device::default()), skips)
        };
        let error = read(OnError::Fail).0.unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("x-0.tar"),
            "{expected}: {error}"
        );
        let (batch, skips) = read(OnError::Skip);
        let mut found = numbers(batch.unwrap());
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, (1..=left).collect::<Vec<_>>(), "{expected}");
        let list = skips.list();
        assert_eq!((list.len(), skips.count()), (1, 1), "{expected}: {list:?}");
        let what = &list[0].what;
        assert!(
            what.contains("x-0.tar") && list[0].reason.contains(expected),
            "{list:?}"
        );
    }
}

#[test]
fn a_missing_shard_is_an_error_or_skipped_and_nothing_at_all_is_always_one() {
    let data = Data::new(&[2, 2]);
    fs::remove_file(&data.shards[0]).unwrap();
    let error = data
        .source("x", 1.0, OnError::Fail)
        .unwrap_err()
        .to_string();
    assert!(error.contains("x-0.tar"), "{error}");
    let skips = SkipLog::new(OnError::Skip);
    let source = Source::shards("x", 1.0, &data.shards, None, &skips).unwrap();
    assert_eq!((source.list().len(), skips.count()), (1, 1));
    // Neither a shard without samples nor one that is none is a stream.
    for bytes in [tar(std::iter::empty()), b"text".to_vec()] {
        fs::write(&data.shards[1], bytes).unwrap();
        let setting = Setting {
            skips: SkipLog::new(OnError::Skip),
            ..Setting::default()
        };
        let source = data.source("x", 1.0, OnError::Skip).unwrap();
        let stream = setting.stream(vec![source]).unwrap();
        let error = stream
            .batch(1, &[0], &Device::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sources.x`: there is no usable sample"),
            "{error}"
        );
    }
    let twice = [data.shards[1].clone(), data.folder.path().join("*.tar")];
    let error = Source::shards("x", 1.0, &twice, None, &skips)
        .unwrap_err()
        .to_string();
    assert!(error.contains("twice"), "{error}");
}

/// With one sample a batch, every bad image is a whole batch.
#[test]
fn a_batch_of_bad_samples_alone_is_skipped_too() {
    let data = Data::new(&[3]);
    let text: Vec<(&str, Vec<u8>)> = vec![
        ("1.png", b"none".to_vec()),
        ("1.txt", b"1".to_vec()),
        ("2.png", b"none".to_vec()),
        ("2.txt", b"2".to_vec()),
        ("3.png", png(3)),
        ("3.txt", b"3".to_vec()),
    ];
    fs::write(&data.shards[0], tar(text.into_iter())).unwrap();
    let setting = Setting {
        window: 1,
        skips: SkipLog::new(OnError::Skip),
        ..Setting::default()
    };
    let stream = setting
        .stream(vec![data.source("x", 1.0, OnError::Skip).unwrap()])
        .unwrap();
    for item in 0..6 {
        let batch = stream.batch(1, &[item], &Device::default()).unwrap();
        assert_eq!(numbers(batch), [3], "item {item}");
    }
    assert_eq!(setting.skips.count(), 2);
}

#[test]
fn impossible_options_are_named() {
    let data = Data::new(&[2]);
    let source = |weight| data.source("x", weight, OnError::Fail).unwrap();
    let short = Setting {
        window: 9,
        ..Setting::default()
    };
    let error = short
        .stream(vec![source(1.0), source(9.0)])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("shuffle_window`: is 9") && error.contains("at least 10"),
        "{error}"
    );
    let none = Setting {
        epoch: 0,
        ..Setting::default()
    };
    for (setting, sources, expected) in [
        (&none, vec![source(1.0)], "epoch_samples"),
        (&short, vec![], "sources"),
        (&short, vec![source(f64::NAN)], "sources.x.weight"),
        (
            &short,
            vec![Source::samples("y", 1.0, Arc::default())],
            "sources.y",
        ),
    ] {
        let error = setting.stream(sources).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
