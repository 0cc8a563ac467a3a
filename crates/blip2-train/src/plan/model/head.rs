//! Logits and loss, without logits of all tokens at once.

use blip2_lm::OptConfig;

use super::Walk;
use crate::plan::dry_run::{Matrix, Tape, Tensor};
use crate::plan::towers::{EMBEDDING, Keeping};
use crate::plan::work::{After, Direction, F32, Layout, Operation, Part, Precision, Product};

/// Logits that are made at once (`blip2_kernels::tied_cross_entropy`).
const LOGITS_AT_ONCE: usize = 1 << 23;

/// Logits and loss of `scored` rows of `hidden`, a few at a time.
pub(super) fn head(
    walk: &mut Walk<'_>,
    (config, keeping): &(OptConfig, Keeping),
    hidden: Tensor,
    scored: usize,
) -> Tensor {
    walk.tape.part = Part::Head;
    let chosen = walk.tape.copied(&[&hidden], scored, hidden.width);
    drop(hidden);
    let embedding = Matrix {
        name: EMBEDDING.into(),
        inputs: config.word_embed_proj_dim,
        outputs: config.vocab_size,
        bits: keeping.bits,
        learns: keeping.learns,
    };
    cross_entropy(walk.tape, chosen, &embedding)
}

/// `blip2_kernels::tied_cross_entropy`, on an `embedding` of `outputs` words.
pub(super) fn cross_entropy(tape: &mut Tape, hidden: Tensor, embedding: &Matrix) -> Tensor {
    let &Matrix {
        inputs: width,
        outputs: words,
        bits,
        ..
    } = embedding;
    // Logits are made in f32, whatever the towers multiply in.
    let product = |rows, inner, columns, weight_bits, layout| {
        Operation::Product(Product {
            rows,
            inner,
            columns,
            precision: Precision::F32,
            weight_bits,
            layout,
            after: After::Nothing,
        })
    };
    let at_once = (LOGITS_AT_ONCE / words.max(1)).max(1);
    let mut slopes = Vec::new();
    for start in (0..hidden.rows).step_by(at_once) {
        let rows = at_once.min(hidden.rows - start);
        let _logits = tape.constant(rows, words);
        tape.does(
            Direction::Forward,
            product(rows, width, words, bits, Layout::Transposed),
        );
        let bytes = 3 * rows * words * F32;
        tape.does(Direction::Forward, Operation::Pass { bytes });
        tape.does(
            Direction::Backward,
            product(rows, words, width, bits, Layout::Plain),
        );
        slopes.push(tape.constant(rows, width));
        if embedding.learns {
            let grad = product(words, rows, width, 32, Layout::WeightGrad);
            tape.does(Direction::Backward, grad);
            let _one = tape.constant(words, width);
        }
    }
    let all = tape.copied(&slopes.iter().collect::<Vec<_>>(), hidden.rows, width);
    drop((slopes, all));
    let parameters = match embedding.learns {
        true => vec![(embedding.name.clone(), words * width * F32)],
        false => Vec::new(),
    };
    tape.known_gradient(&hidden, parameters)
}
