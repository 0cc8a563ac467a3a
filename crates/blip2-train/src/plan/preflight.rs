//! Refuses a run that the memory can't hold, before it begins.

use std::fmt;

use blip2::Blip2Caption;
use blip2_lm::GenerationConfig;
use burn::tensor::Device;

use super::dry_run::Kernels;
use super::fit::{largest, largest_batch};
use super::machine::MainMemory;
use super::memory::{Memory, Need, Phase, captioning_alone, step_alone, words};
use super::model::{Batch, Captioner, Model};
use super::towers::Keeping;
use super::workload::{Captions, Workload, loaded};
use crate::RunError;
use crate::out_of_memory;
use crate::recipe::Recipe;

/// An estimate must exceed what is free by so much before it is believed.
const MARGIN: f64 = 1.1;

/// What is missing.
#[derive(Debug, Clone, PartialEq)]
pub struct Shortage {
    /// What needs the most.
    pub need: Need,
    /// Bytes that are free.
    pub free: usize,
    /// The field or option that says the batch.
    pub field: &'static str,
    /// Its largest value that fits; none if not even 1 does.
    pub fits: Option<usize>,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            need,
            free,
            field,
            fits,
        } = self;
        let (all, largest) = (words(need.bytes), words(need.largest.bytes));
        let (phase, what) = (need.phase.words(), &need.largest.what);
        write!(
            f,
            "{phase} needs about {all} ({what} {largest}) and {} are free; ",
            words(*free)
        )?;
        match fits {
            Some(fits) => write!(f, "{field} = {fits} would fit")?,
            None => write!(f, "not even {field} = 1 would fit")?,
        }
        write!(f, " (--ignore-memory tries it all the same)")
    }
}

impl Shortage {
    /// Refuses, unless it is within the margin or to be ignored.
    fn check(self, ignore: bool) -> Result<(), RunError> {
        match short(&self.need, self.free) && !ignore {
            true => Err(RunError::Memory(Box::new(self))),
            false => Ok(()),
        }
    }
}

fn short(need: &Need, free: usize) -> bool {
    need.bytes as f64 > MARGIN * free as f64
}

/// Compares what a run of `recipe` needs with what is free, and tells
/// [`out_of_memory`] what to say if the estimate was wrong. Returns the estimate in bytes; none where memory
/// can't be asked for (only main memory can), or the recipe is wrong otherwise, which the run says better.
///
/// # Errors
///
/// [`RunError::Memory`], unless `ignore`.
pub fn training(recipe: &Recipe, device: &Device, ignore: bool) -> Result<Option<usize>, RunError> {
    if !blip2_kernels::is_flex(device) {
        return Ok(None);
    }
    let free = MainMemory::now().free;
    let (Ok(quick), kernels) = (Workload::new(recipe, false), Kernels::Fused) else {
        return Ok(None);
    };
    let memory_of = |workload: &Workload| {
        let step = workload
            .model
            .step(&workload.largest(workload.batch), kernels);
        Memory::new(workload, workload.batch, &step, kernels)
    };
    let mut workload = quick;
    // Features take memory by their number, and real texts are shorter than they may be.
    let counts = workload.cache.is_some_and(|cache| cache.in_memory)
        || short(memory_of(&workload).worst(), free);
    if counts && let Ok(counted) = Workload::new(recipe, true) {
        workload = counted;
    }
    let memory = memory_of(&workload);
    let need = memory.worst().clone();
    let estimated = need.bytes;
    let fits = fitting(&workload, need.phase, free);
    let field = need.phase.field();
    let smaller = match need.phase {
        Phase::Training | Phase::Checkpoint => workload.batch,
        Phase::Features | Phase::Captioning => workload.features_batch,
    };
    // What fitted by the estimate did not: half of it is a guess.
    let guess = (smaller / 2).clamp(1, fits.unwrap_or(1).max(1));
    out_of_memory::during(&format!(
        "out of memory in a run that was estimated to need {}; {field} = {guess} would fit",
        words(need.bytes)
    ));
    let shortage = Shortage {
        need,
        free,
        field,
        fits,
    };
    shortage.check(ignore)?;
    Ok(Some(estimated))
}

fn fitting(workload: &Workload, phase: Phase, free: usize) -> Option<usize> {
    match phase {
        Phase::Training | Phase::Checkpoint => largest_batch(workload, free, Kernels::Fused),
        Phase::Features | Phase::Captioning => {
            let step = workload.model.step(&workload.largest(1), Kernels::Fused);
            largest(workload.features_batch, |batch| {
                let workload = Workload {
                    features_batch: batch,
                    captions: workload
                        .captions
                        .map(|captions| Captions { batch, ..captions }),
                    ..workload.clone()
                };
                let memory = Memory::new(&workload, 1, &step, Kernels::Fused);
                let mut of_phase = memory.phases.iter().filter(|need| need.phase == phase);
                of_phase.all(|need| need.bytes <= free)
            })
        }
    }
}

/// As [`training`], of one step of a captioner whose weights are in memory already and whose towers are
/// frozen, with `images` captions of `tokens`.
///
/// # Errors
///
/// As [`training`].
pub fn step(model: &Blip2Caption, images: usize, tokens: usize) -> Result<(), RunError> {
    let model = Model::Caption(Box::new(Captioner {
        between: Keeping::trained(),
        qformer: (model.architecture().qformer.clone(), Keeping::trained()),
        ..loaded(model.architecture())
    }));
    let need = |images| {
        let batch = Batch {
            images,
            tokens,
            scored: tokens as f64,
            cached: false,
        };
        step_alone(&model.step(&batch, Kernels::Fused))
    };
    fits_or(need, images, "the batch", "a step of training", false)
}

/// As [`training`], of captions of `batch` images at once by a model whose weights are in memory already.
///
/// # Errors
///
/// As [`training`].
pub fn captioning(
    model: &Blip2Caption,
    generation: &GenerationConfig,
    prompt: &str,
    batch: usize,
    device: &Device,
    ignore: bool,
) -> Result<(), RunError> {
    if !blip2_kernels::is_flex(device) {
        return Ok(());
    }
    let captions = &Captions {
        batch,
        beams: generation.num_beams.max(generation.num_return_sequences),
        new_tokens: generation.max_new_tokens,
        // BOS; a prompt that can't be cut into tokens is refused by who writes.
        prompt: 1 + model.tokenizer().encode(prompt).map_or(0, |ids| ids.len()),
        val: None,
        val_loss: None,
        test: None,
    };
    let model = &loaded(model.architecture());
    let need = |batch| captioning_alone(model, &Captions { batch, ..*captions });
    fits_or(need, batch, "--batch-size", "captioning", ignore)
}

/// Compares what a batch needs with what is free, and tells [`out_of_memory`] what to say of `what`.
fn fits_or(
    need: impl Fn(usize) -> Need,
    batch: usize,
    field: &'static str,
    what: &str,
    ignore: bool,
) -> Result<(), RunError> {
    let free = MainMemory::now().free;
    let all = need(batch);
    let fits = largest(batch, |batch| need(batch).bytes <= free);
    out_of_memory::during(&format!(
        "out of memory in {what}, which was estimated to need {}; {field} = {} would fit",
        words(all.bytes),
        (batch / 2).clamp(1, fits.unwrap_or(1).max(1))
    ));
    let shortage = Shortage {
        need: all,
        free,
        field,
        fits,
    };
    shortage.check(ignore)
}
