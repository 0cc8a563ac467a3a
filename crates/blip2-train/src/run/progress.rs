//! Plain progress lines for a pipe or a log file; a terminal gets Burn's dashboard instead.

use std::time::{Duration, Instant};

use burn_train::LearnerSummary;
use burn_train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn_train::metric::MetricDefinition;
use burn_train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

/// At most one line in this time, and one at the end of each split.
const INTERVAL: Duration = Duration::from_secs(10);

/// Prints `epoch 1/4 train 512/6000 images, 52.1 images/s, ETA 5m03s, loss 1.234` to stderr.
#[derive(Debug)]
pub struct PlainRenderer {
    epochs: usize,
    epoch: usize,
    split: String,
    total: usize,
    processed: usize,
    loss: Option<String>,
    split_started: Instant,
    /// Items and seconds of training so far, for the time left.
    trained: (usize, f64),
    train_total: usize,
    last_line: Instant,
}

impl Default for PlainRenderer {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            epochs: 0,
            epoch: 0,
            split: String::new(),
            total: 0,
            processed: 0,
            loss: None,
            split_started: now,
            trained: (0, 0.0),
            train_total: 0,
            last_line: now,
        }
    }
}

impl PlainRenderer {
    fn line(&mut self) {
        self.last_line = Instant::now();
        let seconds = self.split_started.elapsed().as_secs_f64();
        let rate = self.processed as f64 / seconds.max(1e-9);
        let mut line = format!(
            "epoch {}/{} {} {}/{}, {rate:.1} items/s",
            self.epoch, self.epochs, self.split, self.processed, self.total
        );
        if let Some(eta) = self.eta() {
            line += &format!(", ETA {}", duration(eta));
        }
        if let Some(loss) = &self.loss {
            line += &format!(", loss {loss}");
        }
        eprintln!("{line}");
    }

    /// Seconds until the last epoch's training ends, at the rate so far.
    fn eta(&self) -> Option<f64> {
        let (mut items, mut seconds) = self.trained;
        let training = self.split == "train";
        if training {
            items += self.processed;
            seconds += self.split_started.elapsed().as_secs_f64();
        }
        let here = if training {
            self.total - self.processed.min(self.total)
        } else {
            0
        };
        let left = here + self.epochs.saturating_sub(self.epoch) * self.train_total;
        (items > 0).then(|| seconds / items as f64 * left as f64)
    }
}

/// `5m03s`, `1h02m`, `12s`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

impl MetricsRendererTraining for PlainRenderer {
    fn update_train(&mut self, state: MetricState) {
        if let MetricState::Numeric(_, Some(entry)) = state {
            self.loss = Some(format!("{:.4}", entry.current()));
        }
    }

    fn update_valid(&mut self, state: MetricState) {
        self.update_train(state);
    }

    fn on_train_end(
        &mut self,
        _summary: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn core::error::Error>> {
        Ok(())
    }
}

impl TrainingProgressLogger for PlainRenderer {
    fn start(
        &mut self,
        total_epochs: usize,
        starting_epoch: usize,
        _total_items: Option<usize>,
        _label: Option<&str>,
    ) {
        self.epochs = total_epochs;
        self.epoch = starting_epoch;
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch = epoch + 1;
    }

    fn start_split(&mut self, split: &str, total_items: usize) {
        self.split = split.to_string();
        self.total = total_items;
        self.processed = 0;
        self.loss = None;
        self.split_started = Instant::now();
        self.last_line = self.split_started;
        if split == "train" {
            self.train_total = total_items;
        }
    }

    fn update_split(&mut self, items_processed: usize) {
        self.processed = items_processed;
        if self.last_line.elapsed() >= INTERVAL {
            self.line();
        }
    }

    fn end_split(&mut self) {
        self.line();
        if self.split == "train" {
            self.trained.0 += self.processed;
            self.trained.1 += self.split_started.elapsed().as_secs_f64();
        }
    }

    fn end(&mut self) {}

    // Burn reports each iteration here; the lines above say it better.
    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for PlainRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl EvaluationProgressLogger for PlainRenderer {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for PlainRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, _definition: MetricDefinition) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(12.4), "12s");
        assert_eq!(duration(303.0), "5m03s");
        assert_eq!(duration(3720.0), "1h02m");
    }
}
