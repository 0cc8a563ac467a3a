//! What a step reports to Burn's metrics.

use std::sync::Arc;

use burn::tensor::{ExecutionError, Tensor, TensorReadError};
use burn_train::ItemLazy;
use burn_train::metric::{
    Adaptor, LossInput, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric,
    NumericAttributes, NumericEntry, SerializedEntry,
};

use super::TaskLoss;

/// The numbers of one batch, read back from the device.
#[derive(Debug, Clone)]
pub struct StepOutput {
    /// The mean loss.
    pub loss: f64,
    /// What the loss is a mean of.
    pub count: usize,
    /// Images or documents.
    pub items: usize,
    /// The fraction of correct predictions, where the task has it.
    pub accuracy: Option<f64>,
    /// What `loss` is the sum of, by name, where it is a sum.
    pub parts: Vec<(&'static str, f64)>,
    /// The task's score, set where it is known: with the last item of a validation epoch.
    pub score: Option<f64>,
}

impl StepOutput {
    /// The numbers of a batch, from those of its parts.
    pub fn of_parts(mut parts: Vec<Self>) -> Self {
        if parts.len() == 1 {
            return parts.remove(0);
        }
        let count: usize = parts.iter().map(|part| part.count).sum();
        let mean = |value: &dyn Fn(&Self) -> f64| {
            let weighted = parts.iter().map(|part| value(part) * part.count as f64);
            weighted.sum::<f64>() / count.max(1) as f64
        };
        let known = parts.iter().all(|part| part.accuracy.is_some());
        let names = parts.first().map_or(&[][..], |part| &part.parts);
        Self {
            loss: mean(&|part| part.loss),
            count,
            items: parts.iter().map(|part| part.items).sum(),
            accuracy: known.then(|| mean(&|part| part.accuracy.unwrap_or(0.0))),
            parts: (0..names.len())
                .map(|index| (names[index].0, mean(&|part| part.parts[index].1)))
                .collect(),
            score: None,
        }
    }

    /// Reads the loss back; waits for the device.
    pub fn new(loss: TaskLoss, items: usize) -> Self {
        let read = |loss: Tensor<1>| f64::from(loss.into_scalar::<f32>());
        Self {
            loss: read(loss.loss),
            parts: loss
                .parts
                .into_iter()
                .map(|(name, part)| (name, read(part)))
                .collect(),
            count: loss.count,
            items,
            accuracy: loss.accuracy,
            score: None,
        }
    }
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for StepOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(Tensor::from_data([self.loss], &crate::device::host()))
    }
}

/// The input of [`ScoreMetric`].
#[derive(Debug, Clone, Copy)]
pub struct ScoreInput(pub Option<f64>);

impl Adaptor<ScoreInput> for StepOutput {
    fn adapt(&self) -> ScoreInput {
        ScoreInput(self.score)
    }
}

/// Shows a score that is known once an epoch (CIDEr, accuracy) on the dashboard.
#[derive(Clone)]
pub struct ScoreMetric {
    name: MetricName,
    value: Option<f64>,
}

impl ScoreMetric {
    /// A metric of the given name.
    pub fn new(name: &str) -> Self {
        Self {
            name: Arc::new(name.to_string()),
            value: None,
        }
    }

    fn entry(&self) -> SerializedEntry {
        match self.value {
            Some(value) => SerializedEntry::new(format!("epoch {value:.4}"), value.to_string()),
            None => SerializedEntry::not_available(None),
        }
    }
}

impl Metric for ScoreMetric {
    type Input = ScoreInput;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: true,
        }
        .into()
    }

    fn update(
        &mut self,
        item: &ScoreInput,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.value = item.0.or(self.value);
        Ok(self.entry())
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    fn clear(&mut self) {
        self.value = None;
    }
}

impl Numeric for ScoreMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.value.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.value.unwrap_or(0.0))
    }
}
