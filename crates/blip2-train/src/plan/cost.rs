//! The plan of a run on a device.

use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::Serialize;

use super::devices::{DataSheet, THIS, data_sheet};
use super::dry_run::Kernels;
use super::fit::largest_batch;
use super::machine::MainMemory;
use super::memory::Memory;
use super::model::Model;
use super::probe::Speed;
use super::run::Others;
use super::work::{Direction, F32, Operation, Part, Precision, Work};
use super::workload::Workload;
use crate::RunError;

/// What a plan is made for, besides the recipe.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// A word of [`devices`](super::devices), or `this`.
    pub device_type: String,
    /// Products of the towers in bf16, whatever the recipe says.
    pub bf16: bool,
    /// Items of an epoch, where the data are not there to count.
    pub items: Option<usize>,
    /// Watts of the machine at hand.
    pub watts: Option<f64>,
    /// Seconds in which the machine at hand reads an image, if it is to read any.
    pub image_seconds: Option<f64>,
}

/// One part of a step, one way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartCost {
    /// The part.
    pub part: Part,
    /// Forward or backward.
    pub direction: Direction,
    /// Floating-point operations of products and attention.
    pub flops: f64,
    /// Bytes to and from memory, if nothing stays in a cache.
    pub bytes: f64,
    /// Seconds of the arithmetic alone.
    pub compute_seconds: f64,
    /// Seconds of memory alone.
    pub bandwidth_seconds: f64,
    /// Seconds, operation by operation.
    pub seconds: f64,
}

impl PartCost {
    fn nothing(part: Part, direction: Direction) -> Self {
        Self {
            part,
            direction,
            flops: 0.0,
            bytes: 0.0,
            compute_seconds: 0.0,
            bandwidth_seconds: 0.0,
            seconds: 0.0,
        }
    }
}

/// What the whole run takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunCost {
    /// Items of an epoch.
    pub items: usize,
    /// Passes over them.
    pub epochs: usize,
    /// Optimizer steps.
    pub steps: usize,
    /// Hours of the steps.
    pub training_hours: f64,
    /// Hours of the features that are computed first.
    pub features_hours: f64,
    /// Hours of validation and tests: at most, for captions may end early.
    pub evaluation_hours: f64,
    /// All of them.
    pub hours: f64,
    /// Kilowatt-hours of the device at its full power, if that is known.
    pub kilowatt_hours: Option<f64>,
}

/// What a run costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The device.
    pub device: String,
    /// Where its speed comes from.
    pub source: String,
    /// Images (or documents) a batch.
    pub batch_size: usize,
    /// Batches an optimizer step.
    pub accumulation: usize,
    /// Text tokens of a row, padded.
    pub text_tokens: usize,
    /// Whether texts were measured, and not taken as long as they may be.
    pub texts_measured: bool,
    /// Whether image embeddings come from a cache.
    pub cached: bool,
    /// One optimizer step, part by part.
    pub step: Vec<PartCost>,
    /// Its seconds.
    pub step_seconds: f64,
    /// What it needs.
    pub memory: Memory,
    /// Bytes that are free (of another device: that it has).
    pub free_memory: usize,
    /// The largest `train.batch_size` that fits; none if not even 1.
    pub largest_batch: Option<usize>,
    /// The run; none if its data are not there to count.
    pub run: Option<RunCost>,
}

/// A device that is asked for seconds.
pub(super) enum Target {
    Sheet(&'static DataSheet),
    Here(Box<Speed>),
}

impl Target {
    fn times(&self, operation: &Operation, tracked: bool) -> [f64; 3] {
        match self {
            Self::Sheet(sheet) => [
                sheet.compute_seconds(operation),
                sheet.bandwidth_seconds(operation),
                sheet.seconds(operation),
            ],
            Self::Here(speed) => [
                speed.compute_seconds(operation),
                speed.bandwidth_seconds(operation),
                speed.seconds(operation) + if tracked { speed.overhead } else { 0.0 },
            ],
        }
    }

    /// Seconds of `work` by part and direction.
    fn cost(&self, work: &BTreeMap<Work, usize>) -> Vec<PartCost> {
        let tracked = |part| {
            let backward =
                |work: &&Work| work.part == part && work.direction == Direction::Backward;
            work.keys().find(backward).is_some()
        };
        let mut parts: BTreeMap<(Part, Direction), PartCost> = BTreeMap::new();
        for (work, &count) in work {
            let &Work {
                part,
                direction,
                operation,
            } = work;
            let entry = parts.entry((part, direction));
            let entry = entry.or_insert(PartCost::nothing(part, direction));
            let count = count as f64;
            let [compute, bandwidth, seconds] = self.times(&operation, tracked(part));
            entry.flops += count * operation.flops();
            entry.bytes += count * operation.bytes();
            entry.compute_seconds += count * compute;
            entry.bandwidth_seconds += count * bandwidth;
            entry.seconds += count * seconds;
        }
        parts.into_values().collect()
    }

    pub fn seconds(&self, work: &BTreeMap<Work, usize>) -> f64 {
        self.cost(work).iter().map(|part| part.seconds).sum()
    }
}

impl Plan {
    /// The cost of `workload` on the device that `settings` name; `device` is the machine at hand.
    ///
    /// # Errors
    ///
    /// An unknown word.
    pub fn new(
        mut workload: Workload,
        settings: &Settings,
        device: &Device,
    ) -> Result<Self, RunError> {
        let here = settings.device_type == THIS;
        let sheet = match here {
            true => None,
            false => Some(data_sheet(&settings.device_type)?),
        };
        let fused = here && blip2_kernels::is_flex(device);
        let kernels = if fused {
            Kernels::Fused
        } else {
            Kernels::Chained
        };
        workload.items = settings.items.or(workload.items);
        if settings.bf16 {
            in_bf16(&mut workload.model);
        }
        let step = workload
            .model
            .step(&workload.usual(workload.batch), kernels);
        let work = optimizer_step(&workload, step.tape.work(), &step);
        let others = Others::new(&workload, kernels);
        let target = match sheet {
            Some(sheet) => Target::Sheet(sheet),
            None => {
                let all = [
                    &work,
                    &others.features,
                    &others.loss,
                    &others.val,
                    &others.test,
                ];
                let mut operations = BTreeMap::new();
                for (work, &count) in all.into_iter().flatten() {
                    *operations.entry(work.operation).or_default() += count;
                }
                Target::Here(Box::new(Speed::measure(device, &operations)))
            }
        };
        let largest = workload
            .model
            .step(&workload.largest(workload.batch), kernels);
        let memory = Memory::new(&workload, workload.batch, &largest, kernels);
        let free_memory = match sheet {
            Some(sheet) => (sheet.memory_gb * 1e9) as usize,
            None => MainMemory::now().free,
        };
        let mut parts = target.cost(&work);
        if let (Some(seconds), false) = (settings.image_seconds, workload.cache.is_some()) {
            let seconds = seconds * (workload.batch * workload.accumulation) as f64;
            parts.push(PartCost {
                seconds,
                ..PartCost::nothing(Part::Data, Direction::Forward)
            });
        }
        let step_seconds = parts.iter().map(|part| part.seconds).sum();
        let watts = sheet.map(|sheet| sheet.watts).or(settings.watts);
        let run = others.run(&workload, &target, step_seconds, watts);
        Ok(Self {
            device: match sheet {
                Some(sheet) => sheet.name.to_string(),
                None => "this machine".into(),
            },
            source: source(&target),
            batch_size: workload.batch,
            accumulation: workload.accumulation,
            text_tokens: workload.usual(workload.batch).tokens,
            texts_measured: workload.texts.measured,
            cached: workload.cache.is_some(),
            step: parts,
            step_seconds,
            memory,
            free_memory,
            largest_batch: largest_batch(&workload, free_memory, kernels),
            run,
        })
    }
}

fn source(target: &Target) -> String {
    match target {
        Target::Sheet(sheet) => format!(
            "{}: {} TFLOP/s in f32, {} in bf16, {} GB/s, {} W; {}",
            sheet.source,
            sheet.f32_tflops,
            sheet.bf16_tflops,
            sheet.bandwidth_gb,
            sheet.watts,
            DataSheet::assumptions()
        ),
        Target::Here(speed) => format!(
            "measured: products {:.0} GFLOP/s in f32, {:.0} in bf16, passes over memory {:.1} GB/s, \
             {:.0} µs an operation of autodiff; each operation of the step timed alone",
            speed.f32_flops / 1e9,
            speed.bf16_flops / 1e9,
            speed.bandwidth / 1e9,
            speed.overhead * 1e6
        ),
    }
}

fn in_bf16(model: &mut Model) {
    match model {
        Model::Caption(model) => {
            model.vision.1.precision = Precision::Bf16;
            model.text.1.precision = Precision::Bf16;
        }
        Model::Stage1(model) => model.vision.1.precision = Precision::Bf16,
        Model::Language(_) | Model::Patches(_) => {}
    }
}

/// The work of `accumulation` batches, and the optimizer's.
fn optimizer_step(
    workload: &Workload,
    batch: &BTreeMap<Work, usize>,
    step: &super::model::Step,
) -> BTreeMap<Work, usize> {
    let mut all: BTreeMap<Work, usize> = batch
        .iter()
        .map(|(work, count)| (*work, count * workload.accumulation))
        .collect();
    let mut does = |operation| {
        let work = Work {
            part: Part::Optimizer,
            direction: Direction::Forward,
            operation,
        };
        *all.entry(work).or_default() += 1;
    };
    for numbers in step.parameters.learned_sizes() {
        let bytes = numbers * F32;
        // The norm of the gradient, and its scaling.
        does(Operation::Pass { bytes });
        if workload.clips {
            does(Operation::Pass { bytes: 2 * bytes });
        }
        if workload.averages {
            does(Operation::Pass { bytes: 3 * bytes });
        }
        does(Operation::Update { numbers });
    }
    all
}
