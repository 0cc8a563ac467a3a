//! One token at a time: the likeliest, or drawn.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::session::{Logits, Session};
use super::{GenerationConfig, Hypothesis, logits, stop};
use crate::{CausalLm, LmError};

/// A text that goes on.
struct Text {
    origin: usize,
    sample: usize,
    /// Its row in the session, before it is fed its last token.
    parent: usize,
    token_ids: Vec<u32>,
    score: f32,
    rng: ChaCha8Rng,
}

/// Writes `num_return_sequences` texts for each row of the session.
pub(super) fn decode<L: CausalLm>(
    mut session: Session<'_, L>,
    mut logits: Logits,
    config: &GenerationConfig,
) -> Result<Vec<Vec<Hypothesis>>, LmError> {
    let batch = session.len();
    let samples = config.num_return_sequences;
    let mut running: Vec<Text> = (0..batch)
        .flat_map(|origin| (0..samples).map(move |sample| (origin, sample)))
        .map(|(origin, sample)| Text {
            origin,
            sample,
            parent: origin,
            token_ids: Vec::new(),
            score: 0.0,
            rng: rng(config.seed, sample),
        })
        .collect();
    let mut ended: Vec<Vec<Option<Hypothesis>>> = vec![vec![None; samples]; batch];
    let mut scores = Vec::new();
    while !running.is_empty() {
        let mut going_on = Vec::with_capacity(running.len());
        for mut text in running {
            let row: &[f32] = logits.row_mut(text.parent);
            scores.clear();
            scores.extend_from_slice(row);
            let prompt = session.prompt(text.origin);
            logits::adjust(&mut scores, prompt, &text.token_ids, config);
            let token = match config.do_sample {
                true => draw(&scores, config, &mut text.rng),
                false => likeliest(&scores),
            };
            text.score += logits::log_probability(row, token as usize);
            text.token_ids.push(token);
            if stop::ends(token, text.token_ids.len(), config) {
                ended[text.origin][text.sample] = Some(Hypothesis {
                    token_ids: text.token_ids,
                    score: text.score,
                });
            } else {
                going_on.push(text);
            }
        }
        running = going_on;
        if running.is_empty() {
            break;
        }
        let parents: Vec<usize> = running.iter().map(|text| text.parent).collect();
        let tokens: Vec<u32> = running
            .iter()
            .filter_map(|text| text.token_ids.last().copied())
            .collect();
        logits = session.advance(&parents, &tokens)?;
        for (row, text) in running.iter_mut().enumerate() {
            text.parent = row;
        }
    }
    Ok(ended
        .into_iter()
        .map(|texts| texts.into_iter().flatten().collect())
        .collect())
}

/// Draws of a sample: the same for each row, so that a batch gives what its rows alone give.
fn rng(seed: u64, sample: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(sample as u64);
    rng
}

/// The first token with the highest score.
fn likeliest(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (token, &score) in scores.iter().enumerate() {
        if score > scores[best] {
            best = token;
        }
    }
    best as u32
}

/// Draws a token with the probabilities that its score gives it.
fn draw(scores: &[f32], config: &GenerationConfig, rng: &mut ChaCha8Rng) -> u32 {
    let kept = logits::warp(scores, config);
    let weights = logits::weights(&kept);
    // 53 random bits: a number in [0, 1) that f64 holds exactly.
    let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut left = uniform * weights.iter().sum::<f64>();
    for (&(token, _), weight) in kept.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return token;
        }
    }
    // Rounding left a crumb, or every token is banned: fall back on the best there is.
    kept.last()
        .map_or_else(|| likeliest(scores), |&(token, _)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities() {
        let config = GenerationConfig {
            temperature: 2.0,
            ..Default::default()
        };
        let scores = [2.0, 0.0, f32::NEG_INFINITY, 4.0];
        let total: f64 = [1.0f64, 0.0, 2.0].iter().map(|x| x.exp()).sum();
        let mut rng = rng(7, 0);
        let mut counts = [0u32; 4];
        let draws = 20_000;
        for _ in 0..draws {
            counts[draw(&scores, &config, &mut rng) as usize] += 1;
        }
        for (token, score) in [(0, 1.0f64), (1, 0.0), (3, 2.0)] {
            let expected = score.exp() / total;
            let share = f64::from(counts[token]) / f64::from(draws);
            // Four standard deviations of 20,000 draws are at most 0.0142.
            assert!(
                (share - expected).abs() < 0.0142,
                "{token}: {share} {expected}"
            );
        }
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn samples_of_a_row_differ_and_seeds_repeat() {
        let numbers = |seed, sample| {
            let mut rng = rng(seed, sample);
            [rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(numbers(3, 1), numbers(3, 1));
        assert_ne!(numbers(3, 1), numbers(3, 2));
        assert_ne!(numbers(3, 1), numbers(4, 1));
    }

    #[test]
    fn the_likeliest_is_the_first_of_equals() {
        assert_eq!(likeliest(&[f32::NEG_INFINITY, 1.0, 3.0, 3.0]), 2);
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 3]), 0);
    }
}
