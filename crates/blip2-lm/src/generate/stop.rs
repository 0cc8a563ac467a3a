//! When a text ends, and when a search does.

use super::GenerationConfig;

/// Whether a text of `length` tokens ends with `token`.
pub(super) fn ends(token: u32, length: usize, config: &GenerationConfig) -> bool {
    length >= config.max_new_tokens || config.eos_token_ids.contains(&token)
}

/// A text's score in beam search.
pub(super) fn normalised(log_probability: f32, length: usize, config: &GenerationConfig) -> f32 {
    log_probability / (length as f64).powf(f64::from(config.length_penalty)) as f32
}

/// Whether a beam search is over, once `num_beams` texts have ended: at once with `early_stopping`,
/// else as soon as the best running text (`best_running`, of `length` tokens) would not beat
/// `worst_ended` if it ended here. A longer text may yet have a higher score where a length penalty
/// is set; the reference accepts that, and so do we.
pub(super) fn search_is_over(
    best_running: f32,
    length: usize,
    worst_ended: f32,
    config: &GenerationConfig,
) -> bool {
    config.early_stopping || normalised(best_running, length, config) <= worst_ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_with_an_ending_token_or_at_its_full_length() {
        let config = GenerationConfig {
            max_new_tokens: 4,
            eos_token_ids: vec![7, 9],
            ..Default::default()
        };
        assert!(ends(9, 1, &config));
        assert!(!ends(8, 3, &config));
        assert!(ends(8, 4, &config));
    }

    #[test]
    fn a_search_goes_on_while_a_running_text_would_win() {
        let mut config = GenerationConfig::default();
        assert!(!search_is_over(-4.0, 4, -1.5, &config));
        assert!(search_is_over(-4.0, 4, -1.0, &config));
        config.length_penalty = 0.0;
        assert!(search_is_over(-4.0, 4, -1.5, &config));
        config.early_stopping = true;
        assert!(search_is_over(0.0, 4, -1.5, &config));
    }
}
