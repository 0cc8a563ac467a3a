//! Hard negatives for image–text matching.

use burn::tensor::{Device, Distribution, Tensor};

/// How negatives are chosen.
#[derive(Debug, Clone)]
pub enum Negatives {
    /// Drawn in proportion to the softmax of the similarities, by the device's random numbers:
    /// training.
    Sampled,
    /// The most similar ones: validation, which then draws nothing.
    Hardest,
    /// These.
    Given(HardNegatives),
}

/// For each pair of a batch what looks right and is wrong; none where everything is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardNegatives {
    /// For each text an image, by index.
    pub images: Vec<Option<usize>>,
    /// For each image a text, by index.
    pub texts: Vec<Option<usize>>,
}

impl Negatives {
    /// Chooses for a batch.
    ///
    /// `logits` are row-major `[images, texts]`, similarities over the temperature; `same(i, j)`
    /// says whether pair j is no negative of pair i.
    ///
    /// Reference: LAVIS `Blip2Qformer.forward`, `weights_t2i` and `weights_i2t`.
    pub(super) fn choose(
        &self,
        logits: &[f32],
        pairs: usize,
        same: impl Fn(usize, usize) -> bool,
        device: &Device,
    ) -> HardNegatives {
        let random: Vec<f32> = match self {
            Self::Given(negatives) => return negatives.clone(),
            Self::Hardest => Vec::new(),
            Self::Sampled => {
                let uniform = Distribution::Uniform(0.0, 1.0);
                let drawn = Tensor::<1>::random([2 * pairs], uniform, device);
                drawn.into_data().iter::<f32>().collect()
            }
        };
        let mut images = Vec::with_capacity(pairs);
        let mut texts = Vec::with_capacity(pairs);
        for pair in 0..pairs {
            let others = || (0..pairs).filter(|&other| !same(pair, other));
            let by_image = others().map(|image| (image, logits[image * pairs + pair]));
            let by_text = others().map(|text| (text, logits[pair * pairs + text]));
            images.push(pick(by_image, random.get(pair)));
            texts.push(pick(by_text, random.get(pairs + pair)));
        }
        HardNegatives { images, texts }
    }
}

/// One of the weighted choices: where `random` in [0, 1) falls in their softmax, or without it the
/// greatest.
fn pick(
    choices: impl Iterator<Item = (usize, f32)> + Clone,
    random: Option<&f32>,
) -> Option<usize> {
    let (best, highest) = choices.clone().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let Some(&random) = random else {
        return Some(best);
    };
    let weights = choices.map(|(index, logit)| (index, f64::from(logit - highest).exp()));
    let total: f64 = weights.clone().map(|(_, weight)| weight).sum();
    let mut left = f64::from(random) * total;
    for (index, weight) in weights {
        left -= weight;
        if left < 0.0 {
            return Some(index);
        }
    }
    // Rounding may leave the last crumb.
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hardest_are_the_most_similar_others() {
        let logits = [9.0, 2.0, 5.0, 4.0, 9.0, 1.0, 3.0, 8.0, 9.0];
        let device = Device::default();
        let chosen = Negatives::Hardest.choose(&logits, 3, |a, b| a == b, &device);
        assert_eq!(chosen.texts, [Some(2), Some(0), Some(1)]);
        assert_eq!(chosen.images, [Some(1), Some(2), Some(0)]);
        let all_same = Negatives::Hardest.choose(&logits, 3, |_, _| true, &device);
        assert_eq!(all_same.texts, [None; 3]);
    }

    #[test]
    fn samples_follow_the_softmax_and_are_never_the_own_pair() {
        let device = Device::default();
        let (pairs, rounds) = (3, 4000);
        let logits = [9.0, 2f32.ln(), 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 9.0];
        let mut first = 0;
        for _ in 0..rounds {
            let chosen = Negatives::Sampled.choose(&logits, pairs, |a, b| a == b, &device);
            assert!(
                chosen
                    .texts
                    .iter()
                    .enumerate()
                    .all(|(own, &text)| text != Some(own))
            );
            first += usize::from(chosen.texts[0] == Some(1));
        }
        // Two of three, within 4 standard deviations of 4,000 draws.
        let share = first as f64 / f64::from(rounds);
        assert!((share - 2.0 / 3.0).abs() < 0.03, "{share}");
    }
}
