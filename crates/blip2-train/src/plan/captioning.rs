//! Writing captions: the image once, the prompt once, then a token for each beam at a time.

use std::collections::BTreeMap;

use super::dry_run::{Kernels, Tape, Tensor};
use super::model::{Captioner, Walk};
use super::parameters::Parameters;
use super::towers::Keeping;
use super::work::{After, Direction, F32, Layout, Operation, Part, Precision, Product, Work};
use super::workload::Captions;

/// What captions of a batch need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Keys and values of all beams before the last token, in bytes.
    pub cache: usize,
    /// The most that is alive at once.
    pub peak: usize,
}

/// One layer's keys and values.
type Layer = [Tensor; 2];

/// What captions of one batch need.
pub fn memory(model: &Captioner, captions: &Captions, kernels: Kernels) -> Needs {
    let mut tape = Tape::new(kernels);
    write(&mut tape, model, captions, captions.beams, true);
    let (config, _) = &model.text;
    let tokens = before(model, captions) + captions.new_tokens;
    let rows = captions.batch * captions.beams;
    Needs {
        cache: 2 * config.num_hidden_layers * rows * tokens * config.hidden_size * F32,
        peak: tape.peak(),
    }
}

/// What is done for the captions of one batch with `beams` beams, and how often: the prompt once, and a
/// token in the middle of the text as often as tokens are written.
pub fn work(
    model: &Captioner,
    captions: &Captions,
    beams: usize,
    kernels: Kernels,
) -> BTreeMap<Work, usize> {
    let prompt = |walked: &Captions| {
        let mut tape = Tape::new(kernels);
        write(&mut tape, model, walked, beams, false);
        tape.work().clone()
    };
    let mut once = Tape::new(kernels);
    begin(&mut once, model, captions);
    let mut all = once.work().clone();
    for (work, count) in prompt(captions) {
        // What a token adds to the beginning.
        let begun = once.work().get(&work).copied().unwrap_or(0);
        let tokens = captions.new_tokens.saturating_sub(1);
        *all.entry(work).or_default() += (count - begun.min(count)) * tokens;
    }
    all
}

/// Positions before the first new token.
fn before(model: &Captioner, captions: &Captions) -> usize {
    model.qformer.0.num_query_tokens + captions.prompt
}

/// Image and prompt: the cache of each row of the batch.
fn begin(tape: &mut Tape, model: &Captioner, captions: &Captions) -> Vec<Layer> {
    let frozen = constant(model);
    let walk = &mut Walk {
        tape,
        parameters: &mut Parameters::default(),
    };
    let prefix = frozen.prefix(walk, captions.batch, false);
    let (config, keeping) = &frozen.text;
    let rows = captions.batch * before(model, captions);
    let inputs = walk.tape.copied(&[&prefix], rows, prefix.width);
    drop(prefix);
    let mut layers = Vec::new();
    let mut lm = walk.tower(Part::TextBackbone, keeping);
    let mut hidden = lm.enter(config, inputs);
    for index in 0..config.num_hidden_layers {
        hidden = lm.decoder_layer(config, index, hidden, captions.batch, &mut |_, keys| {
            layers.push(keys.clone());
            keys
        });
    }
    let hidden = lm.leave(config, hidden);
    let last = walk.tape.copied(&[&hidden], captions.batch, hidden.width);
    logits(walk.tape, &frozen, last);
    layers
}

/// Everything up to a token: the last one, or one in the middle of the text.
fn write(tape: &mut Tape, model: &Captioner, captions: &Captions, beams: usize, last: bool) {
    let layers = begin(tape, model, captions);
    if captions.new_tokens < 2 {
        return;
    }
    let frozen = constant(model);
    let (config, keeping) = &frozen.text;
    let rows = captions.batch * beams;
    let written = match last {
        true => captions.new_tokens - 1,
        false => captions.new_tokens / 2,
    };
    let tokens = before(model, captions) + written;
    // What earlier tokens left, in the order of the beams.
    let layers: Vec<Layer> = layers
        .into_iter()
        .map(|layer| {
            layer
                .each_ref()
                .map(|x| tape.copied(&[x], rows * (tokens - 1), x.width))
        })
        .collect();
    let layers: Vec<Layer> = match beams {
        1 => layers,
        _ => layers
            .into_iter()
            .map(|layer| layer.each_ref().map(|x| tape.copied(&[x], x.rows, x.width)))
            .collect(),
    };
    let walk = &mut Walk {
        tape,
        parameters: &mut Parameters::default(),
    };
    let mut lm = walk.tower(Part::TextBackbone, keeping);
    let words = lm.embed(config, rows);
    let mut hidden = lm.enter(config, words);
    let mut kept = Vec::new();
    for (index, past) in layers.into_iter().enumerate() {
        let mut past = Some(past);
        hidden = lm.decoder_layer(config, index, hidden, rows, &mut |tape, new| {
            let Some(past) = past.take() else { return new };
            let [key, value] = [0, 1].map(|side| {
                let all = past[side].rows + new[side].rows;
                tape.copied(&[&past[side], &new[side]], all, new[side].width)
            });
            kept.push([key.clone(), value.clone()]);
            [key, value]
        });
    }
    let hidden = lm.leave(config, hidden);
    logits(walk.tape, &frozen, hidden);
}

fn logits(tape: &mut Tape, model: &Captioner, hidden: Tensor) {
    let (config, keeping) = &model.text;
    tape.part = Part::Head;
    let product = Operation::Product(Product {
        rows: hidden.rows,
        inner: hidden.width,
        columns: config.vocab_size,
        precision: Precision::F32,
        weight_bits: keeping.bits,
        layout: Layout::Transposed,
        after: After::Nothing,
    });
    tape.does(Direction::Forward, product);
    let logits = tape.constant(hidden.rows, config.vocab_size);
    // Read back, then a softmax over them.
    let read = tape.copied(&[&logits], hidden.rows, config.vocab_size);
    let bytes = 3 * read.rows * read.width * F32;
    tape.does(Direction::Forward, Operation::Pass { bytes });
}

/// The model as it is evaluated: nothing learns.
fn constant(model: &Captioner) -> Captioner {
    let mut model = model.clone();
    model.between = Keeping::frozen();
    for keeping in [&mut model.vision.1, &mut model.qformer.1, &mut model.text.1] {
        keeping.learns = false;
        keeping.adapters = None;
    }
    model
}
