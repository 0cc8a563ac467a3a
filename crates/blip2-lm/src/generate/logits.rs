//! From logits to the scores that a token is chosen by.

use super::GenerationConfig;

/// The logarithm of the sum of exponentials, less the maximum: `(maximum, log(sum))`.
fn max_and_log_sum(logits: &[f32]) -> (f32, f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Eight sums at a time: shorter chains of additions are quicker and more exact.
    let mut sums = [0.0f32; 8];
    for chunk in logits.chunks(8) {
        for (sum, &logit) in sums.iter_mut().zip(chunk) {
            *sum += (logit - max).exp();
        }
    }
    (max, sums.iter().sum::<f32>().ln())
}

/// The log-probability of one token.
pub(super) fn log_probability(logits: &[f32], token: usize) -> f32 {
    let (max, log_sum) = max_and_log_sum(logits);
    logits[token] - max - log_sum
}

/// Turns logits into log-probabilities.
pub(super) fn log_softmax(logits: &mut [f32]) {
    let (max, log_sum) = max_and_log_sum(logits);
    for logit in logits {
        *logit = *logit - max - log_sum;
    }
}

/// Changes the scores of the next token by the `prompt` and what was written: the repetition penalty,
/// then bans.
pub(super) fn adjust(
    scores: &mut [f32],
    prompt: &[u32],
    written: &[u32],
    config: &GenerationConfig,
) {
    let history = || -> Vec<u32> { prompt.iter().chain(written).copied().collect() };
    if config.repetition_penalty != 1.0 {
        let mut tokens = history();
        tokens.sort_unstable();
        tokens.dedup();
        for token in tokens {
            let score = &mut scores[token as usize];
            *score = match *score < 0.0 {
                true => *score * config.repetition_penalty,
                false => *score / config.repetition_penalty,
            };
        }
    }
    let size = config.no_repeat_ngram_size;
    if size > 0 && prompt.len() + written.len() + 1 >= size {
        let history = history();
        let ending = &history[history.len() + 1 - size..];
        for ngram in history.windows(size) {
            if &ngram[..size - 1] == ending {
                scores[ngram[size - 1] as usize] = f32::NEG_INFINITY;
            }
        }
    }
    if written.len() < config.min_new_tokens {
        for &eos in &config.eos_token_ids {
            scores[eos as usize] = f32::NEG_INFINITY;
        }
    }
}

/// Tokens that sampling may draw and their scores over `temperature`, within `top_k` and `top_p`.
pub(super) fn warp(scores: &[f32], config: &GenerationConfig) -> Vec<(u32, f32)> {
    let mut kept: Vec<(u32, f32)> = scores
        .iter()
        .enumerate()
        .filter(|(_, score)| **score > f32::NEG_INFINITY)
        .map(|(token, score)| (token as u32, score / config.temperature))
        .collect();
    if config.top_k > 0 && config.top_k < kept.len() {
        let mut ranked: Vec<f32> = kept.iter().map(|&(_, score)| score).collect();
        let (_, worst, _) = ranked.select_nth_unstable_by(config.top_k - 1, |a, b| b.total_cmp(a));
        // Ties with the last token stay, as in the reference.
        let worst = *worst;
        kept.retain(|&(_, score)| score >= worst);
    }
    if config.top_p < 1.0 {
        kept.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let weights = weights(&kept);
        let limit = f64::from(config.top_p) * weights.iter().sum::<f64>();
        let mut before = 0.0;
        let count = weights
            .iter()
            .take_while(|&&weight| {
                let keep = before < limit;
                before += weight;
                keep
            })
            .count();
        kept.truncate(count.max(1));
    }
    kept
}

/// Unnormalised probabilities.
pub(super) fn weights(scores: &[(u32, f32)]) -> Vec<f64> {
    let max = scores
        .iter()
        .map(|&(_, score)| score)
        .fold(f32::NEG_INFINITY, f32::max);
    scores
        .iter()
        .map(|&(_, score)| f64::from(score - max).exp())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: f32 = f32::NEG_INFINITY;

    #[test]
    fn log_softmax_is_the_logarithm_of_softmax() {
        let logits: Vec<f32> = (0..37)
            .map(|i| 30.0 + (i as f32 * 1.7).sin() * 9.0)
            .collect();
        let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let mut result = logits.clone();
        log_softmax(&mut result);
        for (token, (&logit, &result)) in logits.iter().zip(&result).enumerate() {
            let exact = f64::from(logit) - total.ln();
            // A few roundings at the size of a logit: 30 · 2^-24 each.
            assert!((f64::from(result) - exact).abs() < 1e-5, "{exact} {result}");
            assert_eq!(log_probability(&logits, token), result);
        }
    }

    #[test]
    fn a_repeated_token_is_penalised_once() {
        let config = GenerationConfig {
            repetition_penalty: 2.0,
            ..Default::default()
        };
        let mut scores = [1.0, -1.0, 4.0, -4.0];
        adjust(&mut scores, &[], &[3, 2, 3, 3], &config);
        assert_eq!(scores, [1.0, -1.0, 2.0, -8.0]);
    }

    #[test]
    fn no_ngram_is_completed_twice() {
        let banned = |size, written: &[u32]| {
            let config = GenerationConfig {
                no_repeat_ngram_size: size,
                ..Default::default()
            };
            let mut scores = [0.0; 6];
            adjust(&mut scores, &[], written, &config);
            (0..6)
                .filter(|&token| scores[token] == NEVER)
                .collect::<Vec<_>>()
        };
        assert_eq!(banned(1, &[4, 2]), [2, 4]);
        assert_eq!(banned(2, &[1, 2, 5, 1, 3, 1]), [2, 3]);
        assert_eq!(banned(3, &[1, 2, 5, 1, 2]), [5]);
        assert!(banned(3, &[1]).is_empty());
        assert!(banned(2, &[]).is_empty());
        assert!(banned(0, &[1, 1, 1]).is_empty());
    }

    #[test]
    fn ends_are_banned_before_the_minimum() {
        let config = GenerationConfig {
            min_new_tokens: 2,
            eos_token_ids: vec![0, 2],
            ..Default::default()
        };
        let mut scores = [1.0; 4];
        adjust(&mut scores, &[], &[3], &config);
        assert_eq!(scores, [NEVER, 1.0, NEVER, 1.0]);
        let mut scores = [1.0; 4];
        adjust(&mut scores, &[], &[3, 3], &config);
        assert_eq!(scores, [1.0; 4]);
    }

    #[derive(serde::Deserialize)]
    struct Reference {
        warp_scores: Vec<f32>,
        warps: Vec<Warp>,
    }

    #[derive(serde::Deserialize)]
    struct Warp {
        config: GenerationConfig,
        kept: Vec<Kept>,
    }

    #[derive(serde::Deserialize)]
    struct Kept {
        token: u32,
        score: f32,
    }

    /// Values of `tests/reference/generate.py`.
    #[test]
    fn matches_transformers_temperature_top_k_and_top_p() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/reference/generate/cases.json"
        );
        let reference: Reference =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(!reference.warps.is_empty());
        for case in reference.warps {
            let mut kept = warp(&reference.warp_scores, &case.config);
            kept.sort_by_key(|&(token, _)| token);
            let tokens: Vec<u32> = kept.iter().map(|&(token, _)| token).collect();
            let expected: Vec<u32> = case.kept.iter().map(|kept| kept.token).collect();
            assert_eq!(tokens, expected, "{:?}", case.config);
            for ((_, score), expected) in kept.iter().zip(&case.kept) {
                // One division.
                assert!(
                    (score - expected.score).abs() <= 1e-6 * score.abs(),
                    "{score}"
                );
            }
        }
    }

    #[test]
    fn warp_keeps_at_least_the_likeliest_token() {
        let config = GenerationConfig {
            top_p: 1e-6,
            temperature: 0.5,
            ..Default::default()
        };
        assert_eq!(warp(&[0.0, 3.0, NEVER, 2.0], &config), [(1, 6.0)]);
    }
}
