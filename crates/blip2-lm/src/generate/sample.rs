//! Greedy search and sampling.

use burn::tensor::{Int, Tensor};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::decode::Decoder;
use super::logits::{log_softmax, process, top};
use super::{GenerationConfig, Hypothesis};
use crate::{CausalLm, LmError};

struct Row {
    hypothesis: Hypothesis,
    rng: ChaCha8Rng,
    finished: bool,
}

pub(super) fn search(
    lm: &impl CausalLm,
    inputs_embeds: Tensor<3>,
    attention_mask: Tensor<2, Int>,
    config: &GenerationConfig,
) -> Result<Vec<Vec<Hypothesis>>, LmError> {
    let copies = config.num_return_sequences;
    let (mut decoder, mut logits) = Decoder::prefill(lm, inputs_embeds, attention_mask, copies)?;
    let mut rows: Vec<Row> = (0..logits.len())
        .map(|index| {
            // A row's stream does not depend on its place in the batch.
            let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
            rng.set_stream((index % copies) as u64);
            Row {
                hypothesis: Hypothesis {
                    token_ids: Vec::new(),
                    score: 0.0,
                },
                rng,
                finished: false,
            }
        })
        .collect();
    // The rows of `logits`; finished ones leave the batch.
    let mut active: Vec<usize> = (0..rows.len()).collect();
    for step in 0..config.max_new_tokens {
        let (mut kept, mut ids) = (Vec::new(), Vec::new());
        for (place, (&index, scores)) in active.iter().zip(&mut logits).enumerate() {
            let row = &mut rows[index];
            let id = choose(scores, row, config);
            if config.eos_token_ids.contains(&id) {
                row.finished = true;
            } else {
                kept.push(place);
                ids.push(id);
            }
        }
        if kept.is_empty() || step + 1 == config.max_new_tokens {
            break;
        }
        active = kept.iter().map(|&place| active[place]).collect();
        logits = decoder.advance(&kept, &ids)?;
    }
    let hypotheses: Vec<Hypothesis> = rows.into_iter().map(|row| row.hypothesis).collect();
    Ok(hypotheses
        .chunks(copies)
        .map(|texts| {
            let mut texts = texts.to_vec();
            texts.sort_by(|a, b| b.score.total_cmp(&a.score));
            texts
        })
        .collect())
}

/// Chooses the next token of a row and adds it.
fn choose(scores: &mut [f32], row: &mut Row, config: &GenerationConfig) -> u32 {
    process(scores, &row.hypothesis.token_ids, config);
    let id = if config.do_sample {
        for score in scores.iter_mut() {
            *score /= config.temperature;
        }
        draw(scores, config, &mut row.rng)
    } else {
        top(scores, 1)[0].0
    };
    log_softmax(scores);
    row.hypothesis.score += scores[id];
    row.hypothesis.token_ids.push(id as u32);
    id as u32
}

/// Draws from the `top_k` best, of these from the smallest set with probability `top_p`.
fn draw(scores: &[f32], config: &GenerationConfig, rng: &mut impl Rng) -> usize {
    let count = if config.top_k == 0 {
        scores.len()
    } else {
        config.top_k
    };
    let best = top(scores, count);
    let highest = best[0].1;
    let weights: Vec<f32> = best
        .iter()
        .map(|(_, score)| (score - highest).exp())
        .collect();
    let total: f32 = weights.iter().sum();
    let mut nucleus = 0;
    let mut mass = 0.0;
    for weight in &weights {
        nucleus += 1;
        mass += weight;
        if mass >= config.top_p * total {
            break;
        }
    }
    let mut point = rng.random::<f32>() * mass;
    for ((id, _), weight) in best[..nucleus].iter().zip(&weights) {
        point -= weight;
        if point < 0.0 {
            return *id;
        }
    }
    best[nucleus - 1].0
}
