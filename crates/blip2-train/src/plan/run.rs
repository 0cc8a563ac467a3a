//! The whole run: features, steps, validation, tests.

use std::collections::BTreeMap;

use super::captioning;
use super::cost::{RunCost, Target};
use super::dry_run::{Kernels, Tape};
use super::model::Model;
use super::work::{Direction, Work};
use super::workload::Workload;

/// What a run does besides its steps, for one batch each.
pub(super) struct Others {
    pub features: BTreeMap<Work, usize>,
    pub loss: BTreeMap<Work, usize>,
    pub val: BTreeMap<Work, usize>,
    pub test: BTreeMap<Work, usize>,
}

impl Others {
    pub fn new(workload: &Workload, kernels: Kernels) -> Self {
        let nothing = BTreeMap::new;
        let features = match workload.cache {
            Some(_) => workload
                .model
                .encode(workload.features_batch, kernels)
                .work()
                .clone(),
            None => nothing(),
        };
        let Some(captions) = &workload.captions else {
            return Self {
                features,
                loss: nothing(),
                val: nothing(),
                test: nothing(),
            };
        };
        let forward = |tape: &Tape| {
            let forward = tape.work().iter();
            let forward = forward.filter(|(work, _)| work.direction == Direction::Forward);
            forward.map(|(work, count)| (*work, *count)).collect()
        };
        let batch = workload.usual(captions.batch);
        let loss = workload.model.step(&batch, kernels);
        let written = |beams| match &workload.model {
            Model::Caption(model) => captioning::work(model, captions, beams, kernels),
            _ => nothing(),
        };
        Self {
            features,
            loss: forward(&loss.tape),
            val: captions
                .val
                .map_or_else(nothing, |(_, beams)| written(beams)),
            test: written(captions.beams),
        }
    }

    pub fn run(
        &self,
        workload: &Workload,
        target: &Target,
        step_seconds: f64,
        watts: Option<f64>,
    ) -> Option<RunCost> {
        let (items, steps) = (workload.items?, workload.steps()?);
        let epochs = workload.epochs as f64;
        let batches = |images: usize| images as f64 / workload.features_batch as f64;
        let features = workload.cache.and_then(|cache| cache.views).unwrap_or(0);
        let features_seconds = batches(features) * target.seconds(&self.features);
        let mut evaluation_seconds = 0.0;
        if let Some(captions) = &workload.captions {
            let loss = batches(captions.val_loss.unwrap_or(0)) * target.seconds(&self.loss);
            let val = captions.val.map_or(0, |(images, _)| images);
            let val = batches(val) * target.seconds(&self.val);
            let test = batches(captions.test.unwrap_or(0)) * target.seconds(&self.test);
            evaluation_seconds = epochs * (loss + val) + test;
        }
        let hours = |seconds: f64| seconds / 3600.0;
        let training_hours = hours(steps as f64 * step_seconds);
        let (features_hours, evaluation_hours) =
            (hours(features_seconds), hours(evaluation_seconds));
        let all = training_hours + features_hours + evaluation_hours;
        Some(RunCost {
            items,
            epochs: workload.epochs,
            steps,
            training_hours,
            features_hours,
            evaluation_hours,
            hours: all,
            kilowatt_hours: watts.map(|watts| watts * all / 1000.0),
        })
    }
}
