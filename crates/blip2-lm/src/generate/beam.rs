//! Beam search, as transformers 5 does it, but with each row of the batch on its own.

use super::session::{Logits, Session};
use super::{GenerationConfig, Hypothesis, logits, stop};
use crate::{CausalLm, LmError};

/// The search of one row of the batch.
struct Search {
    origin: usize,
    /// The best first.
    running: Vec<Beam>,
    /// At most `num_beams`, the best first; the scores are length-normalised.
    ended: Vec<Hypothesis>,
}

/// A text that goes on.
struct Beam {
    token_ids: Vec<u32>,
    /// The sum of its log-probabilities.
    score: f32,
    /// Its row in the session, before it is fed its last token.
    parent: usize,
}

/// A text with a possible next token.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    score: f32,
    /// Index into [`Search::running`].
    beam: usize,
    token: u32,
}

/// Searches each row of the session.
pub(super) fn decode<L: CausalLm>(
    mut session: Session<'_, L>,
    mut logits: Logits,
    config: &GenerationConfig,
) -> Result<Vec<Vec<Hypothesis>>, LmError> {
    let batch = session.len();
    let mut results: Vec<Vec<Hypothesis>> = vec![Vec::new(); batch];
    // All beams of a row would start alike: it starts with one.
    let mut searches: Vec<Search> = (0..batch)
        .map(|row| Search {
            origin: row,
            running: vec![Beam {
                token_ids: Vec::new(),
                score: 0.0,
                parent: row,
            }],
            ended: Vec::new(),
        })
        .collect();
    while !searches.is_empty() {
        let mut going_on = Vec::with_capacity(searches.len());
        for mut search in searches {
            if search.step(&mut logits, session.prompt(search.origin), config) {
                search.ended.truncate(config.num_return_sequences);
                results[search.origin] = search.ended;
            } else {
                going_on.push(search);
            }
        }
        searches = going_on;
        if searches.is_empty() {
            break;
        }
        let beams = || searches.iter().flat_map(|search| &search.running);
        let parents: Vec<usize> = beams().map(|beam| beam.parent).collect();
        let tokens: Vec<u32> = beams()
            .filter_map(|beam| beam.token_ids.last().copied())
            .collect();
        logits = session.advance(&parents, &tokens)?;
        let beams = searches.iter_mut().flat_map(|search| &mut search.running);
        for (row, beam) in beams.enumerate() {
            beam.parent = row;
        }
    }
    Ok(results)
}

impl Search {
    /// Extends the beams by a token. True if the search is over.
    fn step(&mut self, logits: &mut Logits, prompt: &[u32], config: &GenerationConfig) -> bool {
        let mut best = Best::new(config.candidates());
        for (index, beam) in self.running.iter().enumerate() {
            let scores = logits.row_mut(beam.parent);
            logits::log_softmax(scores);
            logits::adjust(scores, prompt, &beam.token_ids, config);
            for (token, &score) in scores.iter().enumerate() {
                best.offer(Candidate {
                    score: score + beam.score,
                    beam: index,
                    token: token as u32,
                });
            }
        }
        let length = 1 + self.running.first().map_or(0, |beam| beam.token_ids.len());
        let mut running = Vec::with_capacity(config.num_beams);
        for (rank, candidate) in best.kept.into_iter().enumerate() {
            let parent = &self.running[candidate.beam];
            let extended = || [parent.token_ids.as_slice(), &[candidate.token]].concat();
            if stop::ends(candidate.token, length, config) {
                // Candidates beyond the beams only stand in for those that end.
                if rank < config.num_beams {
                    self.end(extended(), candidate.score, config);
                }
            } else if running.len() < config.num_beams {
                running.push(Beam {
                    token_ids: extended(),
                    score: candidate.score,
                    parent: parent.parent,
                });
            }
        }
        self.running = running;
        let Some(best_running) = self.running.first() else {
            return true;
        };
        match self.ended.get(config.num_beams - 1) {
            Some(worst) => stop::search_is_over(best_running.score, length, worst.score, config),
            None => false,
        }
    }

    /// Keeps an ended text if it is among the `num_beams` best.
    fn end(&mut self, token_ids: Vec<u32>, log_probability: f32, config: &GenerationConfig) {
        let score = stop::normalised(log_probability, token_ids.len(), config);
        let rank = self.ended.partition_point(|ended| ended.score >= score);
        self.ended.insert(rank, Hypothesis { token_ids, score });
        self.ended.truncate(config.num_beams);
    }
}

/// The best few of many candidates, the best first; of equals, the first offered.
struct Best {
    kept: Vec<Candidate>,
    size: usize,
    /// What a candidate must beat: checked for each token of the vocabulary, so it is at hand.
    threshold: Option<f32>,
}

impl Best {
    fn new(size: usize) -> Self {
        Self {
            kept: Vec::with_capacity(size + 1),
            size,
            threshold: None,
        }
    }

    fn offer(&mut self, candidate: Candidate) {
        if self
            .threshold
            .is_some_and(|threshold| candidate.score <= threshold)
        {
            return;
        }
        let rank = self
            .kept
            .partition_point(|kept| kept.score >= candidate.score);
        self.kept.insert(rank, candidate);
        self.kept.truncate(self.size);
        if self.kept.len() == self.size {
            self.threshold = self.kept.last().map(|kept| kept.score);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_those_of_a_full_sort() {
        let scores: Vec<f32> = (0..500u32)
            .map(|i| (i.wrapping_mul(2654435761) % 97) as f32)
            .collect();
        let mut best = Best::new(12);
        let mut all = Vec::new();
        for (token, &score) in scores.iter().enumerate() {
            let (beam, token) = (token / 100, (token % 100) as u32);
            let candidate = Candidate { score, beam, token };
            best.offer(candidate);
            all.push(candidate);
        }
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        assert_eq!(best.kept, all[..12]);
    }

    #[test]
    fn fewer_candidates_than_asked_for_are_all_kept() {
        let mut best = Best::new(4);
        for token in 0..3 {
            best.offer(Candidate {
                score: f32::NEG_INFINITY,
                beam: 0,
                token,
            });
        }
        assert_eq!(best.kept.len(), 3);
    }
}
