//! How many of the first so many positions of a stream come from each of its sources.

use crate::DataError;

/// The whole, in the fixed point of the shares.
const ONE: u64 = 1 << 62;

/// The shares of the sources, summed up from the first on, in units of 2⁻⁶².
///
/// With the sums cₖ, source k has ⌊i·cₖ⌋ − ⌊i·cₖ₋₁⌋ of the first i positions: less than one beside
/// its exact share, and known without counting. Taken one by one, a source may get one position back
/// (shares ½, ⅒, …: the second has one of the first 5 and none of the first 6), so positions are
/// given out by windows that hold at least one of every source; from window to window no count falls.
#[derive(Debug, Clone)]
pub(super) struct Mixture {
    sums: Vec<u64>,
}

impl Mixture {
    /// Shares in proportion to `weights`, each with its source's name.
    ///
    /// # Errors
    ///
    /// A weight that is no positive number, or too small beside the others.
    pub fn new<'a>(
        weights: impl Iterator<Item = (&'a str, f64)> + Clone,
    ) -> Result<Self, DataError> {
        let error = |name: &str, reason: String| DataError::Config {
            field: format!("data.stream.sources.{name}.weight"),
            reason,
        };
        let mut total = 0.0;
        for (name, weight) in weights.clone() {
            if !(weight > 0.0 && weight.is_finite()) {
                return Err(error(name, format!("is {weight}; it must be above 0")));
            }
            total += weight;
        }
        let count = weights.clone().count();
        let (mut sums, mut sum) = (Vec::with_capacity(count), 0.0);
        for (name, weight) in weights {
            sum += weight;
            let before = sums.last().copied().unwrap_or(0);
            let next = match sums.len() + 1 == count {
                true => ONE,
                false => (sum / total * ONE as f64) as u64,
            };
            // Below one in a million million, windows would have to be as long.
            if next.saturating_sub(before) < ONE >> 40 {
                let reason = format!("is {weight}: too little beside all weights, {total}");
                return Err(error(name, reason));
            }
            sums.push(next);
        }
        Ok(Self { sums })
    }

    /// How many of the first `positions` come from `source`.
    pub fn before(&self, source: usize, positions: u64) -> u64 {
        let part = |sum: u64| ((u128::from(positions) * u128::from(sum)) >> 62) as u64;
        let below = source.checked_sub(1).map_or(0, |index| self.sums[index]);
        part(self.sums[source]) - part(below)
    }

    /// The shortest window that holds one of every source.
    pub fn shortest_window(&self) -> u64 {
        let below = std::iter::once(0).chain(self.sums.iter().copied());
        let shares = self.sums.iter().zip(below).map(|(sum, below)| sum - below);
        ONE.div_ceil(shares.min().unwrap_or(ONE))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mixture(weights: &[f64]) -> Result<Mixture, DataError> {
        Mixture::new(weights.iter().map(|&weight| ("x", weight)))
    }

    #[test]
    fn impossible_weights_are_named() {
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300] {
            let error = mixture(&[1.0, weight]).unwrap_err().to_string();
            assert!(error.contains("sources.x.weight"), "{error}");
        }
    }

    proptest! {
        /// The oracle is the exact share, positions × weight / sum of weights; the tolerance beside
        /// "less than 1" is for the rounding of f64 at 10⁹ positions.
        #[test]
        fn counts_lie_within_one_of_the_share_and_never_fall(
            weights in prop::collection::vec(0.01f64..100.0, 1..6),
            window in 0u64..1000,
            index in 0u64..1_000_000,
        ) {
            let mixture = mixture(&weights).unwrap();
            let window = mixture.shortest_window() + window;
            let positions = window * index;
            let sum: f64 = weights.iter().sum();
            let mut all = 0;
            for (source, weight) in weights.iter().enumerate() {
                let count = mixture.before(source, positions);
                let share = positions as f64 * weight / sum;
                prop_assert!((count as f64 - share).abs() < 1.0 + 1e-5, "{count} of {share}");
                prop_assert!(mixture.before(source, positions + window) >= count);
                all += count;
            }
            prop_assert_eq!(all, positions);
        }
    }
}
