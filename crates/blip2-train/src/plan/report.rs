//! A plan as text.

use super::Plan;
use super::cost::PartCost;
use super::memory::words;
use super::work::Direction;

impl Plan {
    /// Aligned tables for a terminal.
    pub fn to_text(&self) -> String {
        let mut lines = vec![
            format!("device: {}", self.device),
            format!("  {}", self.source),
            self.step_title(),
            format!(
                "{:<30}{:>12}{:>12}{:>14}{:>12}{:>12}",
                "part", "GFLOP", "GB", "arithmetic s", "memory s", "s"
            ),
        ];
        lines.extend(self.step.iter().map(part_line));
        let sum = |of: fn(&PartCost) -> f64| self.step.iter().map(of).sum::<f64>();
        lines.push(numbers(
            "sum",
            [
                sum(|part| part.flops),
                sum(|part| part.bytes),
                sum(|part| part.compute_seconds),
                sum(|part| part.bandwidth_seconds),
                self.step_seconds,
            ],
        ));
        lines.push(String::new());
        lines.push(format!("{:<42}{:>12}", "memory", ""));
        let items = self.memory.items.iter();
        lines.extend(items.map(|item| format!("{:<42}{:>12}", item.what, words(item.bytes))));
        let worst = self.memory.worst();
        for need in &self.memory.phases {
            let mark = if need.phase == worst.phase {
                "  ← the most"
            } else {
                ""
            };
            let what = format!("all while {}", need.phase.words());
            lines.push(format!("{what:<42}{:>12}{mark}", words(need.bytes)));
        }
        lines.push(format!("{:<42}{:>12}", "free", words(self.free_memory)));
        lines.push(match self.largest_batch {
            Some(batch) => format!("largest train.batch_size that fits: {batch}"),
            None => "not even train.batch_size = 1 fits".into(),
        });
        lines.push(String::new());
        lines.extend(self.run_lines());
        lines.join("\n")
    }

    fn step_title(&self) -> String {
        let measured = match self.texts_measured {
            true => "",
            false => " (the most that the recipe allows)",
        };
        let images = match (self.accumulation, self.cached) {
            (1, true) => format!("batch {}, images from the feature cache", self.batch_size),
            (1, false) => format!("batch {}", self.batch_size),
            (times, _) => format!("{times} batches of {}", self.batch_size),
        };
        format!(
            "an optimizer step: {images}, {} text tokens{measured}",
            self.text_tokens
        )
    }

    fn run_lines(&self) -> Vec<String> {
        let Some(run) = &self.run else {
            return vec![
                "the run: its images are not here to count; say how many items an epoch has with \
                 --train-images"
                    .into(),
            ];
        };
        let energy = match run.kilowatt_hours {
            Some(energy) => format!("{energy:.3} kWh at the device's full power"),
            None => "energy: say the machine's power with --watts".into(),
        };
        vec![
            format!(
                "the run: {} epochs of {} items, {} steps, {:.2} images/s",
                run.epochs,
                run.items,
                run.steps,
                (self.batch_size * self.accumulation) as f64 / self.step_seconds
            ),
            format!(
                "{} h: features {}, training {}, evaluation at most {}; {energy}",
                hours(run.hours),
                hours(run.features_hours),
                hours(run.training_hours),
                hours(run.evaluation_hours)
            ),
        ]
    }
}

fn part_line(part: &PartCost) -> String {
    let direction = match part.direction {
        Direction::Forward => "",
        Direction::Backward => ", backward",
    };
    numbers(
        &format!("{}{direction}", part.part),
        [
            part.flops,
            part.bytes,
            part.compute_seconds,
            part.bandwidth_seconds,
            part.seconds,
        ],
    )
}

fn numbers(what: &str, [flops, bytes, compute, bandwidth, seconds]: [f64; 5]) -> String {
    format!(
        "{what:<30}{:>12}{:>12}{:>14}{:>12}{:>12}",
        digits(flops / 1e9),
        digits(bytes / 1e9),
        digits(compute),
        digits(bandwidth),
        digits(seconds)
    )
}

fn hours(hours: f64) -> String {
    digits(hours)
}

/// Three digits that say something.
fn digits(number: f64) -> String {
    match number {
        0.0 => "0".into(),
        large if large >= 100.0 => format!("{large:.0}"),
        _ => {
            let before = number.abs().log10().floor() as i32;
            format!("{number:.*}", usize::try_from(2 - before).unwrap_or(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        for (number, expected) in [
            (0.0, "0"),
            (0.001234, "0.00123"),
            (0.5, "0.500"),
            (12.34, "12.3"),
            (1234.5, "1234"),
        ] {
            assert_eq!(digits(number), expected);
        }
    }
}
