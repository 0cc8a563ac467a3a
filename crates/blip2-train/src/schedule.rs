//! Linear warm-up, then a half cosine; a pure function of the step.

use burn::optim::lr_scheduler::{LrScheduler, LrSchedulerRecord};

use crate::recipe::ScheduleConfig;

/// The learning rate of every step of a run.
#[derive(Debug, Clone)]
pub struct WarmupCosine {
    config: ScheduleConfig,
    total_steps: usize,
    step: usize,
}

impl WarmupCosine {
    /// A schedule that reaches `min_lr` at the last of `total_steps`, with `step` steps done.
    ///
    /// The state is the number of steps alone, and a checkpoint names that already: the record is
    /// empty and a resumed run starts here.
    pub fn new(config: &ScheduleConfig, total_steps: usize, step: usize) -> Self {
        Self {
            config: config.clone(),
            total_steps,
            step,
        }
    }

    /// The learning rate of step `step`, counted from 0.
    ///
    /// Reference: LAVIS `LinearWarmupCosineLRScheduler`, by step instead of by epoch.
    pub fn at(&self, step: usize) -> f64 {
        let ScheduleConfig {
            lr,
            min_lr,
            warmup_lr,
            warmup_steps,
        } = self.config;
        if step < warmup_steps {
            return warmup_lr + (lr - warmup_lr) * step as f64 / warmup_steps as f64;
        }
        let decay_steps = self.total_steps.saturating_sub(warmup_steps + 1).max(1);
        let progress = ((step - warmup_steps) as f64 / decay_steps as f64).min(1.0);
        min_lr + (lr - min_lr) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

impl LrScheduler for WarmupCosine {
    fn step(&mut self) -> f64 {
        let lr = self.at(self.step);
        self.step += 1;
        lr
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new()
    }

    fn load_record(&mut self, _record: LrSchedulerRecord) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_and_ends_at_the_last_step() {
        let config = ScheduleConfig {
            lr: 1.0,
            min_lr: 0.1,
            warmup_lr: 0.2,
            warmup_steps: 4,
        };
        let schedule = WarmupCosine::new(&config, 11, 0);
        assert_eq!(schedule.at(0), 0.2);
        assert!((schedule.at(2) - 0.6).abs() < 1e-12);
        assert_eq!(schedule.at(4), 1.0);
        assert!(
            (schedule.at(7) - 0.55).abs() < 1e-12,
            "half way of the cosine"
        );
        assert!((schedule.at(10) - 0.1).abs() < 1e-12);
        assert!((schedule.at(99) - 0.1).abs() < 1e-12, "and it stays there");
        let mut resumed = WarmupCosine::new(&config, 11, 7);
        assert_eq!(resumed.step(), schedule.at(7));
    }
}
