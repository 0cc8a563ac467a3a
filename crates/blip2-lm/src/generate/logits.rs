//! What is done to a row's scores before a token is chosen.

use super::GenerationConfig;

/// `log_softmax` of one row.
pub(super) fn log_softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = row.iter().map(|score| (score - max).exp()).sum();
    let shift = max + sum.ln();
    for score in row {
        *score -= shift;
    }
}

/// Repetition penalty, no repeated n-grams, no early end; in transformers' order.
///
/// Greedy search and sampling process logits, beam search log-probabilities.
pub(super) fn process(row: &mut [f32], new_ids: &[u32], config: &GenerationConfig) {
    if config.repetition_penalty != 1.0 {
        let mut seen: Vec<u32> = new_ids.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            let score = &mut row[id as usize];
            *score = if *score < 0.0 {
                *score * config.repetition_penalty
            } else {
                *score / config.repetition_penalty
            };
        }
    }
    let size = config.no_repeat_ngram_size;
    if size > 0 && new_ids.len() + 1 >= size {
        let start = &new_ids[new_ids.len() + 1 - size..];
        for ngram in new_ids.windows(size) {
            if ngram[..size - 1] == *start {
                row[ngram[size - 1] as usize] = f32::NEG_INFINITY;
            }
        }
    }
    if new_ids.len() < config.min_new_tokens {
        for &id in &config.eos_token_ids {
            row[id as usize] = f32::NEG_INFINITY;
        }
    }
}

/// The `count` highest of `scores` with their indices, highest first; ties by index.
pub(super) fn top(scores: &[f32], count: usize) -> Vec<(usize, f32)> {
    let better = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut indexed: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    let count = count.min(indexed.len());
    if count < indexed.len() {
        indexed.select_nth_unstable_by(count, better);
        indexed.truncate(count);
    }
    indexed.sort_unstable_by(better);
    indexed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_act_on_new_tokens_alone() {
        let config = GenerationConfig {
            repetition_penalty: 2.0,
            no_repeat_ngram_size: 2,
            min_new_tokens: 4,
            eos_token_ids: vec![4],
            ..GenerationConfig::default()
        };
        // "0 1 0" was generated: 1 after 0 would repeat a pair, 0 and 1 are penalised.
        let mut row = [2.0, -1.0, 3.0, 0.5, 9.0];
        process(&mut row, &[0, 1, 0], &config);
        assert_eq!(row, [1.0, f32::NEG_INFINITY, 3.0, 0.5, f32::NEG_INFINITY]);
    }

    #[test]
    fn top_is_sorted_and_breaks_ties_by_index() {
        assert_eq!(
            top(&[1.0, 3.0, 3.0, 2.0], 3),
            [(1, 3.0), (2, 3.0), (3, 2.0)]
        );
        assert_eq!(top(&[1.0], 5), [(0, 1.0)]);
    }
}
