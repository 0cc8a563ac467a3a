//! Beam search, as transformers' `generate` does it.

use burn::tensor::{Int, Tensor};

use super::decode::Decoder;
use super::logits::{log_softmax, process, top};
use super::{GenerationConfig, Hypothesis};
use crate::{CausalLm, LmError};

/// An unfinished text.
#[derive(Clone)]
struct Beam {
    token_ids: Vec<u32>,
    /// The sum of log-probabilities, after processing.
    sum: f32,
}

/// The beams of one row of the batch.
struct Search {
    beams: Vec<Beam>,
    /// Finished texts with their penalised scores, at most `num_beams`.
    finished: Vec<Hypothesis>,
    done: bool,
}

pub(super) fn search(
    lm: &impl CausalLm,
    inputs_embeds: Tensor<3>,
    attention_mask: Tensor<2, Int>,
    config: &GenerationConfig,
) -> Result<Vec<Vec<Hypothesis>>, LmError> {
    let width = config.num_beams;
    let (mut decoder, mut logits) = Decoder::prefill(lm, inputs_embeds, attention_mask, width)?;
    let batch = logits.len() / width;
    let mut searches: Vec<Search> = (0..batch).map(|_| Search::new(width)).collect();
    // The searches that `logits` has rows of, `width` each.
    let mut active: Vec<usize> = (0..batch).collect();
    for step in 0..config.max_new_tokens {
        let (mut rows, mut ids, mut next) = (Vec::new(), Vec::new(), Vec::new());
        for (place, &index) in active.iter().enumerate() {
            let search = &mut searches[index];
            let scores = &mut logits[place * width..(place + 1) * width];
            let parents = search.step(scores, config, step + 1 == config.max_new_tokens);
            if search.done {
                continue;
            }
            next.push(index);
            for (beam, parent) in search.beams.iter().zip(parents) {
                rows.push(place * width + parent);
                ids.push(
                    beam.token_ids
                        .last()
                        .copied()
                        .unwrap_or(config.pad_token_id),
                );
            }
        }
        active = next;
        if active.is_empty() || step + 1 == config.max_new_tokens {
            break;
        }
        logits = decoder.advance(&rows, &ids)?;
    }
    Ok(searches
        .into_iter()
        .map(|search| search.into_best(config))
        .collect())
}

impl Search {
    fn new(width: usize) -> Self {
        let beams = (0..width)
            .map(|index| Beam {
                token_ids: Vec::new(),
                // All beams are the same at first, so only one of them may go on.
                sum: if index == 0 { 0.0 } else { -1e9 },
            })
            .collect();
        Self {
            beams,
            finished: Vec::new(),
            done: false,
        }
    }

    /// Extends the beams by one token; returns the parent of each new beam.
    fn step(
        &mut self,
        logits: &mut [Vec<f32>],
        config: &GenerationConfig,
        last: bool,
    ) -> Vec<usize> {
        let width = self.beams.len();
        let vocabulary = logits[0].len();
        let mut scores = Vec::with_capacity(width * vocabulary);
        for (beam, row) in self.beams.iter().zip(logits) {
            log_softmax(row);
            process(row, &beam.token_ids, config);
            scores.extend(row.iter().map(|score| score + beam.sum));
        }
        // Enough candidates for `width` beams to go on, whatever number of them ends here.
        let ends = config.eos_token_ids.len();
        let candidates = top(&scores, width * (1 + ends).max(2));
        let (mut beams, mut parents) = (Vec::with_capacity(width), Vec::with_capacity(width));
        for (rank, (index, sum)) in candidates.iter().copied().enumerate() {
            let (parent, id) = (index / vocabulary, (index % vocabulary) as u32);
            let mut token_ids = self.beams[parent].token_ids.clone();
            token_ids.push(id);
            if config.eos_token_ids.contains(&id) {
                // An end that is not among the best `width` candidates does not count.
                if rank < width {
                    self.finish(token_ids, sum, config);
                }
            } else if beams.len() < width {
                beams.push(Beam { token_ids, sum });
                parents.push(parent);
            }
        }
        self.beams = beams;
        self.done = self.is_done(config, last);
        parents
    }

    fn finish(&mut self, token_ids: Vec<u32>, sum: f32, config: &GenerationConfig) {
        let score = penalised(sum, token_ids.len(), config);
        self.finished.push(Hypothesis { token_ids, score });
        // Stable, so that of equal texts the earlier stays.
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(config.num_beams);
    }

    /// Whether no unfinished beam can still enter the finished texts.
    fn is_done(&self, config: &GenerationConfig, last: bool) -> bool {
        if self.finished.len() < config.num_beams {
            return false;
        }
        if config.early_stopping || last {
            return true;
        }
        let worst = self
            .finished
            .last()
            .map_or(f32::NEG_INFINITY, |text| text.score);
        let best = self.beams.first().map_or(f32::NEG_INFINITY, |beam| {
            penalised(beam.sum, beam.token_ids.len(), config)
        });
        worst >= best
    }

    fn into_best(mut self, config: &GenerationConfig) -> Vec<Hypothesis> {
        if !self.done {
            // Out of tokens: the unfinished beams compete as they are.
            for beam in std::mem::take(&mut self.beams) {
                self.finish(beam.token_ids, beam.sum, config);
            }
        }
        self.finished.truncate(config.num_return_sequences);
        self.finished
    }
}

fn penalised(sum: f32, length: usize, config: &GenerationConfig) -> f32 {
    sum / (length as f32).powf(config.length_penalty)
}
