//! Streams that go on in the middle.

use std::fs;

use super::*;

/// From every batch on, over several passes and epochs, with the counts of the run that stopped and
/// without: the oracle is the run that did not stop.
#[test]
fn resume_at_any_batch_equals_the_uninterrupted_order() {
    let data = Data::new(&[5, 9, 7, 2]);
    let sources = || {
        let samples = Source::samples("y", 1.0, data.samples(4));
        vec![data.source("x", 3.0, OnError::Fail).unwrap(), samples]
    };
    let counts = data.counts();
    let setting = Setting {
        counts: Some(&counts),
        ..Setting::default()
    };
    let whole = epochs(&setting.loader(sources(), 2), 8);
    let batches = whole.len() / 8;
    for (start, expected) in whole.iter().enumerate() {
        for counts in [Some(&*counts), None] {
            let setting = Setting {
                counts,
                ..Setting::default()
            };
            let loader = setting.loader(sources(), start % 3);
            loader.seek(Position {
                epoch: 1 + start / batches,
                batch: start % batches,
            });
            let first = loader.iter().next().unwrap().unwrap();
            assert_eq!(&numbers(first), expected, "batch {start}, {counts:?}");
        }
    }
}

/// What a jump costs: with counts it opens none of the shards that lie before.
#[test]
fn with_counts_a_jump_reads_its_own_shard_alone() {
    let data = Data::new(&[4; 6]);
    let counts = data.counts();
    let setting = Setting {
        epoch: 24,
        window: 4,
        counts: Some(&counts),
        ..Setting::default()
    };
    let source = || vec![data.source("x", 1.0, OnError::Fail).unwrap()];
    let whole = epochs(&setting.loader(source(), 0), 1).concat();
    let stream = setting.stream(source()).unwrap();
    // Their sizes were looked at; from here on reading any but the last shard fails.
    let last = whole[20] / 4;
    for (index, shard) in data.shards.iter().enumerate() {
        if index != last {
            fs::remove_file(shard).unwrap();
        }
    }
    let items: Vec<usize> = (20..24).collect();
    let batch = stream.batch(1, &items, &Device::default()).unwrap();
    assert_eq!(numbers(batch), whole[20..24]);
}

#[test]
fn a_broken_count_file_only_costs_a_scan() {
    let data = Data::new(&[3, 4, 5]);
    let counts = data.counts();
    let setting = Setting {
        epoch: 20,
        counts: Some(&counts),
        ..Setting::default()
    };
    let source = || vec![data.source("x", 1.0, OnError::Fail).unwrap()];
    let whole = epochs(&setting.loader(source(), 0), 1);
    let text = fs::read_to_string(&counts).unwrap();
    for cut in 0..text.len() {
        fs::write(&counts, &text[..cut]).unwrap();
        let loader = setting.loader(source(), 0);
        loader.seek(Position { epoch: 1, batch: 5 });
        let rest: Vec<_> = loader.iter().map(|batch| numbers(batch.unwrap())).collect();
        assert_eq!(rest, whole[5..], "{cut} bytes");
        let lines = fs::read_to_string(&counts).unwrap();
        assert!(
            lines.matches("\"samples\"").count() >= 3,
            "completed: {lines}"
        );
    }
}

#[test]
fn a_changed_shard_is_named_at_the_start_and_while_it_is_read() {
    let data = Data::new(&[4, 4]);
    let counts = data.counts();
    let setting = Setting {
        epoch: 16,
        counts: Some(&counts),
        skips: SkipLog::new(OnError::Skip),
        ..Setting::default()
    };
    let source = || data.source("x", 1.0, OnError::Fail).unwrap();
    let old = source();
    epochs(&setting.loader(vec![source()], 0), 1);
    write_shard(&data.shards[1], 4..9);
    let error = setting.stream(vec![source()]).unwrap_err().to_string();
    assert!(error.contains("x-1.tar: has changed: its size"), "{error}");
    let stream = Setting {
        counts: None,
        ..setting
    }
    .stream(vec![old])
    .unwrap();
    let items: Vec<usize> = (0..8).collect();
    let error = stream
        .batch(1, &items, &Device::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("x-1.tar: has changed: its size"), "{error}");
}

/// A shard of the same size that lost a sample since it was counted: another order would follow.
#[test]
fn a_shard_with_fewer_samples_than_counted_is_named() {
    let data = Data::new(&[4, 4]);
    let counts = data.counts();
    let setting = Setting {
        epoch: 16,
        counts: Some(&counts),
        skips: SkipLog::new(OnError::Skip),
        ..Setting::default()
    };
    let source = || vec![data.source("x", 1.0, OnError::Fail).unwrap()];
    epochs(&setting.loader(source(), 0), 1);
    let bytes = fs::read(&data.shards[1]).unwrap();
    let mut changed = bytes.clone();
    let place = bytes
        .windows(10)
        .position(|name| name == b"000006.txt")
        .unwrap();
    changed[place + 7..place + 10].copy_from_slice(b"cls");
    let sum: u32 = b"txt"
        .iter()
        .zip(b"cls")
        .map(|(a, b)| u32::from(*a) - u32::from(*b))
        .sum();
    let field = place + 148;
    let old = u32::from_str_radix(
        std::str::from_utf8(&bytes[field..field + 7])
            .unwrap()
            .trim(),
        8,
    )
    .unwrap();
    changed[field..field + 7].copy_from_slice(format!("{:07o}", old - sum).as_bytes());
    fs::write(&data.shards[1], changed).unwrap();
    let stream = setting.stream(source()).unwrap();
    let items: Vec<usize> = (0..16).collect();
    let error = stream
        .batch(1, &items, &Device::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("x-1.tar: has changed: its number of samples was 4, now it is 3"),
        "{error}"
    );
}
