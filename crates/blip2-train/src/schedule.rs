//! The learning rate as a pure function of the step.

use burn::optim::lr_scheduler::{LrScheduler, LrSchedulerRecord};

use crate::recipe::{ScheduleConfig, ScheduleKind};

/// The learning rate of every step of a run.
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    steps_per_epoch: usize,
    epochs: usize,
    scale: f64,
    step: usize,
}

impl Schedule {
    /// A schedule over `epochs` with `step` steps done.
    ///
    /// The state is the number of steps alone, and a checkpoint names that already: the record is
    /// empty and a resumed run starts here.
    pub fn new(
        config: &ScheduleConfig,
        steps_per_epoch: usize,
        epochs: usize,
        step: usize,
    ) -> Self {
        Self {
            config: config.clone(),
            steps_per_epoch,
            epochs,
            scale: 1.0,
            step,
        }
    }

    /// The same course at `scale` times the rate.
    pub fn scaled(&self, scale: f64) -> Self {
        Self {
            scale,
            ..self.clone()
        }
    }

    /// The learning rate of step `step`, counted from 0.
    ///
    /// Reference: LAVIS `LinearWarmupCosineLRScheduler` and `LinearWarmupStepLRScheduler`; and the
    /// cosine by step instead of by epoch.
    pub fn at(&self, step: usize) -> f64 {
        let ScheduleConfig {
            kind,
            per_epoch,
            decay_rate,
            lr,
            min_lr,
            warmup_lr,
            warmup_steps,
        } = self.config;
        let epoch = step / self.steps_per_epoch.max(1);
        // By epoch, the reference leaves the warm-up with the first epoch, finished or not.
        if step < warmup_steps && !(per_epoch && epoch > 0) {
            return self.scale * (warmup_lr + (lr - warmup_lr) * step as f64 / warmup_steps as f64);
        }
        let progress = if per_epoch {
            epoch as f64 / self.epochs.max(1) as f64
        } else {
            let total = self.steps_per_epoch * self.epochs;
            let decay_steps = total.saturating_sub(warmup_steps + 1).max(1);
            (step - warmup_steps) as f64 / decay_steps as f64
        };
        let lr = match kind {
            ScheduleKind::Constant => lr,
            ScheduleKind::Step => {
                let rate = decay_rate.unwrap_or(1.0);
                min_lr.max(lr * rate.powi(epoch as i32))
            }
            ScheduleKind::Cosine => {
                let cosine = (std::f64::consts::PI * progress.min(1.0)).cos();
                min_lr + (lr - min_lr) * 0.5 * (1.0 + cosine)
            }
        };
        self.scale * lr
    }
}

impl LrScheduler for Schedule {
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

    fn config() -> ScheduleConfig {
        ScheduleConfig {
            kind: ScheduleKind::Cosine,
            per_epoch: false,
            decay_rate: None,
            lr: 1.0,
            min_lr: 0.1,
            warmup_lr: 0.2,
            warmup_steps: 4,
        }
    }

    #[test]
    fn warms_up_and_ends_at_the_last_step() {
        let schedule = Schedule::new(&config(), 11, 1, 0);
        assert_eq!(schedule.at(0), 0.2);
        assert!((schedule.at(2) - 0.6).abs() < 1e-12);
        assert_eq!(schedule.at(4), 1.0);
        assert!(
            (schedule.at(7) - 0.55).abs() < 1e-12,
            "half way of the cosine"
        );
        assert!((schedule.at(10) - 0.1).abs() < 1e-12);
        assert!((schedule.at(99) - 0.1).abs() < 1e-12, "and it stays there");
        let mut resumed = Schedule::new(&config(), 11, 1, 7);
        assert_eq!(resumed.step(), schedule.at(7));
        assert_eq!(schedule.scaled(0.5).at(4), 0.5);
    }

    /// The values of LAVIS's `LinearWarmupCosineLRScheduler(max_epoch=5, min_lr=0.1, init_lr=1,
    /// warmup_steps=4, warmup_start_lr=0.2)` with 3 steps an epoch.
    #[test]
    fn by_epoch_it_is_that_of_lavis() {
        let config = ScheduleConfig {
            per_epoch: true,
            ..config()
        };
        let schedule = Schedule::new(&config, 3, 5, 0);
        let expected = [
            0.2,
            0.4,
            0.6,
            0.914_057_6,
            0.914_057_6,
            0.914_057_6,
            0.689_057_6,
        ];
        for (step, expected) in expected.into_iter().enumerate() {
            let found = schedule.at(step);
            assert!((found - expected).abs() < 1e-6, "step {step}: {found}");
        }
    }

    #[test]
    fn steps_and_constants_keep_their_floor_and_their_rate() {
        let step = ScheduleConfig {
            kind: ScheduleKind::Step,
            decay_rate: Some(0.5),
            warmup_steps: 0,
            ..config()
        };
        let rates = |config| [0, 9, 10, 25, 60].map(|at| Schedule::new(config, 10, 9, 0).at(at));
        assert_eq!(rates(&step), [1.0, 1.0, 0.5, 0.25, 0.1]);
        let constant = ScheduleConfig {
            kind: ScheduleKind::Constant,
            ..step
        };
        assert_eq!(rates(&constant), [1.0; 5]);
    }
}
