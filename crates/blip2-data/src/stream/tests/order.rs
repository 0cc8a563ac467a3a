//! Which sample comes when.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[test]
fn every_sample_comes_once_a_pass_and_passes_differ() {
    let data = Data::new(&[5, 0, 7, 1]);
    let source = data.source("x", 1.0, OnError::Fail).unwrap();
    let setting = Setting {
        epoch: 26,
        window: 1,
        ..Setting::default()
    };
    let all: Vec<usize> = epochs(&setting.loader(vec![source], 0), 1).concat();
    let (first, second) = all.split_at(13);
    assert_ne!(first, second);
    for pass in [first, second] {
        let mut sorted = pass.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..13).collect::<Vec<_>>());
    }
}

#[test]
fn order_is_the_same_for_0_1_and_4_workers() {
    let data = Data::new(&[5, 9, 7, 1]);
    let sources = || {
        let samples = Source::samples("y", 1.0, data.samples(6));
        vec![data.source("x", 2.0, OnError::Fail).unwrap(), samples]
    };
    let setting = Setting::default();
    let expected = epochs(&setting.loader(sources(), 0), 7);
    assert_eq!(expected.concat().len(), 70);
    for workers in [1, 4] {
        assert_eq!(
            epochs(&setting.loader(sources(), workers), 7),
            expected,
            "{workers}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the shards, weights and window: read in any order and by anyone, a position holds the
    /// same sample, and each source's samples come once before any comes twice.
    #[test]
    fn any_position_is_the_same_from_anywhere(
        sizes in prop::collection::vec(0usize..6, 1..5),
        window in 4usize..12,
        weight in 0.5f64..2.0,
        starts in prop::collection::vec(0u64..90, 1..6),
    ) {
        prop_assume!(sizes.iter().sum::<usize>() > 0);
        let data = Data::new(&sizes);
        let sources = || {
            let samples = Source::samples("y", weight, data.samples(3));
            vec![data.source("x", 1.0, OnError::Fail).unwrap(), samples]
        };
        let setting = Setting { window, ..Setting::default() };
        let name = |item: &Item, stream: &StreamSource| stream.name(item);
        let whole = setting.stream(sources()).unwrap();
        let expected = whole.order.at(0..100).unwrap();
        let jumping = setting.stream(sources()).unwrap();
        for start in starts {
            let found = jumping.order.at(start..start + 10).unwrap();
            for (item, expected) in found.iter().zip(&expected[start as usize..]) {
                prop_assert_eq!(name(item, &jumping), name(expected, &whole));
            }
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        let windows = 100 / window * window;
        for item in &expected[..windows] {
            *seen.entry(name(item, &whole)).or_default() += 1;
        }
        for of_shards in [true, false] {
            let counts: Vec<usize> = seen
                .iter()
                .filter(|(name, _)| name.contains(".tar") == of_shards)
                .map(|(_, &count)| count)
                .collect();
            let total = if of_shards { sizes.iter().sum() } else { 3 };
            let least = if counts.len() < total { 0 } else { *counts.iter().min().unwrap_or(&0) };
            prop_assert!(counts.iter().max().unwrap_or(&0) - least <= 1, "{:?}", counts);
        }
    }
}
