//! A batch on several devices: each holds a copy of the model and computes a part of the batch.
//!
//! The loss is a mean over tokens, so that of a batch is the mean of those of its parts, weighted by
//! their tokens; and so are the gradients. One optimizer steps on the first device; the others get
//! its weights. Burn's own `ExecutionStrategy::MultiDevice` gives each device whole batches of its own and adds up
//! their gradients, so that batch and learning rate would depend on the number of devices.

use burn::module::{ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::average::weights;
use super::finite;
use super::host::Values;
use crate::RunError;
use crate::devices::{Devices, NamedDevice};
use crate::optim::{add_grads, scale_grads};
use crate::tasks::{Started, StepOutput, Task, TaskError};

/// What a batch gave.
pub(super) struct Trained {
    pub output: StepOutput,
    pub grads: GradientsParams,
    /// The first tensor that is not finite, if the loss is not.
    pub broken: Option<String>,
}

/// Where the randomness of a batch comes from: the seed of the run, the step, the batch of that step.
/// Nothing else, so that a resumed run draws the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    pub seed: u64,
    pub step: usize,
    pub batch: usize,
}

/// The devices of a run, and the models on all but the first; the first has the learner's.
pub(super) struct Copies<T> {
    devices: Devices,
    models: Vec<T>,
}

impl<T: Task> Copies<T> {
    /// Without models yet; see [`copy`](Self::copy).
    pub fn none(devices: &Devices) -> Self {
        Self {
            devices: devices.clone(),
            models: Vec::new(),
        }
    }

    /// Copies `model`, which lies on the first device, to the others.
    pub fn copy(&mut self, model: &T) {
        let [main, others @ ..] = self.devices.all() else {
            return;
        };
        if others.is_empty() {
            return;
        }
        // Servers need not reach each other: what one has goes to the next by way of this process.
        let model = match main.is_remote() {
            true => model.clone().fork(&crate::device::host().autodiff()),
            false => model.clone(),
        };
        let copy = |to: &NamedDevice| model.clone().fork(&to.device.clone().autodiff());
        self.models = others.iter().map(copy).collect();
    }

    /// The model at `place`, where `main` is the learner's.
    fn model<'a>(&'a self, place: usize, main: &'a T) -> &'a T {
        match place {
            0 => main,
            place => &self.models[place - 1],
        }
    }

    /// Forward and backward pass of a batch, each part on its device; `main` is the learner's model.
    pub fn train_batch(
        &self,
        main: &T,
        parts: Vec<T::Batch>,
        draw: Draw,
    ) -> Result<Trained, RunError> {
        let mut started = Vec::with_capacity(parts.len());
        // All get their work before the first is waited for.
        for (place, part) in parts.iter().enumerate() {
            self.seed(place, draw);
            let begun = self.model(place, main).start_batch(part.clone());
            let Started { grads, loss, items } = begun.map_err(failed)?;
            started.push((grads, loss, items));
        }
        let (mut outputs, mut grads) = (Vec::new(), Vec::new());
        for (part, loss, items) in started {
            outputs.push(StepOutput::new(loss, items));
            grads.push(part);
        }
        let broken = outputs.iter().position(|output| !output.loss.is_finite());
        let broken = broken.map(|place| {
            // The same dropout once more; a single device is seeded by a step's first batch.
            let batch = if parts.len() == 1 { 0 } else { draw.batch };
            self.seed(place, Draw { batch, ..draw });
            first_tensor(self.model(place, main), parts[place].clone())
        });
        Ok(Trained {
            grads: self.mean(main, grads, &outputs)?,
            output: StepOutput::of_parts(outputs),
            broken,
        })
    }

    /// A single device is seeded once a step; of several each before each of its parts, for they may
    /// share one generator.
    fn seed(&self, place: usize, draw: Draw) {
        let devices = self.devices.all();
        let step = mix(draw.seed, draw.step);
        match devices {
            [_] if draw.batch > 0 => {}
            [one] => one.device.seed(step),
            all => {
                let part = draw.batch * all.len() + place;
                all[place].device.seed(mix(step, part));
            }
        }
    }

    /// The mean of the gradients of parts, on the first device.
    fn mean(
        &self,
        main: &T,
        mut grads: Vec<GradientsParams>,
        outputs: &[StepOutput],
    ) -> Result<GradientsParams, RunError> {
        if grads.len() == 1 {
            return Ok(grads.remove(0));
        }
        let total: usize = outputs.iter().map(|output| output.count).sum();
        let mut mean = GradientsParams::new();
        for (place, (grads, output)) in grads.into_iter().zip(outputs).enumerate() {
            let weight = output.count as f64 / total.max(1) as f64;
            let grads = scale_grads(main, self.to_main(place, main, grads)?, weight);
            mean = add_grads(main, mean, grads);
        }
        Ok(mean)
    }

    fn to_main(
        &self,
        place: usize,
        main: &T,
        grads: GradientsParams,
    ) -> Result<GradientsParams, RunError> {
        let (from, to) = (&self.devices.all()[place], &self.devices.all()[0]);
        match (place, from.is_remote() || to.is_remote()) {
            (0, _) => Ok(grads),
            (_, true) => Ok(Values::read(main, &grads)?.write(main, &to.device)),
            (_, false) => Ok(grads.to_device(&to.device, main)),
        }
    }

    /// Gives all copies the weights of the learner's model.
    pub fn follow(&mut self, main: &T) -> Result<(), RunError> {
        let [first, others @ ..] = self.devices.all() else {
            return Ok(());
        };
        // Read once for all.
        let mut values = None;
        for (model, to) in self.models.iter_mut().zip(others) {
            let new = if first.is_remote() || to.is_remote() {
                let values = match &values {
                    Some(values) => values,
                    None => values.insert(Values::read(main, &weights(main))?),
                };
                values.write(main, &to.device)
            } else {
                weights(main).to_device(&to.device, main)
            };
            *model = model.clone().map(&mut Put(new));
        }
        Ok(())
    }
}

fn failed(error: TaskError) -> RunError {
    RunError::Training(error.to_string())
}

/// Puts weights in the place of a model's.
struct Put(GradientsParams);

impl ModuleMapper for Put {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(new) = self.0.remove::<D>(param.id) else {
            return param;
        };
        param.map(|old| {
            let learns = old.is_require_grad();
            let new = if old.is_autodiff() {
                new.autodiff()
            } else {
                new
            };
            if learns { new.require_grad() } else { new }
        })
    }
}

/// The first tensor of a step that is not finite: a weight, or what `model` makes of `batch`.
fn first_tensor<T: Task>(model: &T, batch: T::Batch) -> String {
    finite::first_weight(model)
        .map(|path| format!("weight {path}"))
        .or_else(|| model.first_non_finite(batch))
        .unwrap_or_else(|| "loss".into())
}

/// One seed out of two numbers (the finalizer of SplitMix64).
fn mix(seed: u64, step: usize) -> u64 {
    let mut mixed = seed ^ (step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
