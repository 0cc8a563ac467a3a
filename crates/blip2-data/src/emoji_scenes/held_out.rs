//! Which pairs and relations only the compositional test shows.

use std::collections::BTreeSet;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::scene::{Axis, CATEGORIES, pairs};

/// Share of all pairs that `test` alone shows.
const HELD_OUT_PAIRS: f64 = 0.12;
/// Share of the other pairs of which `test` alone shows one axis.
const HELD_OUT_AXES: f64 = 0.12;

/// Pairs of categories, and (pair, axis) relations, that train, val and test_seen never show.
#[derive(Debug, Clone)]
pub struct HeldOut {
    pairs: BTreeSet<(usize, usize)>,
    relations: BTreeSet<(usize, usize, Axis)>,
}

impl HeldOut {
    /// Draws them by seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let all: Vec<usize> = (0..CATEGORIES.len()).collect();
        let mut candidates = pairs(&all);
        candidates.shuffle(&mut rng);
        let split = (candidates.len() as f64 * HELD_OUT_PAIRS) as usize;
        let others = candidates.split_off(split);
        let relations = (others.len() as f64 * HELD_OUT_AXES) as usize;
        Self {
            pairs: candidates.into_iter().collect(),
            relations: others
                .into_iter()
                .take(relations)
                .map(|(a, b)| {
                    let axis = if rng.random_bool(0.5) {
                        Axis::Row
                    } else {
                        Axis::Column
                    };
                    (a, b, axis)
                })
                .collect(),
        }
    }

    /// Whether `pair` along `axis` is for the compositional test alone.
    pub fn contains(&self, pair: (usize, usize), axis: Axis) -> bool {
        self.pairs.contains(&pair) || self.relations.contains(&(pair.0, pair.1, axis))
    }

    /// Whether `pair` is held out along any axis, not one of its relations only.
    pub fn contains_pair(&self, pair: (usize, usize)) -> bool {
        self.pairs.contains(&pair)
    }

    /// `count` categories of which no two are held out along `axis`. Now and then two are the same.
    pub(super) fn seen(&self, axis: Axis, count: usize, rng: &mut impl Rng) -> Vec<usize> {
        loop {
            let mut categories: Vec<usize> = (0..count)
                .map(|_| rng.random_range(0..CATEGORIES.len()))
                .collect();
            if count == 2 && rng.random_bool(0.1) {
                categories[1] = categories[0];
            }
            let distinct = count == 2 || pairs(&categories).len() == count * (count - 1) / 2;
            if distinct
                && !pairs(&categories)
                    .into_iter()
                    .any(|pair| self.contains(pair, axis))
            {
                return categories;
            }
        }
    }

    /// `count` different categories with at least one pair that is held out along `axis`: half of
    /// the time an unseen pair, else an unseen relation of a seen pair.
    pub(super) fn unseen(&self, axis: Axis, count: usize, rng: &mut impl Rng) -> Vec<usize> {
        let choices: Vec<(usize, usize)> = if rng.random_bool(0.5) {
            self.pairs.iter().copied().collect()
        } else {
            let along = self.relations.iter().filter(|relation| relation.2 == axis);
            along.map(|&(a, b, _)| (a, b)).collect()
        };
        let &(a, b) = choices.choose(rng).unwrap_or(&(0, 1));
        let mut categories = vec![a, b];
        while categories.len() < count {
            let next = rng.random_range(0..CATEGORIES.len());
            if !categories.contains(&next) {
                categories.push(next);
            }
        }
        categories
    }
}
