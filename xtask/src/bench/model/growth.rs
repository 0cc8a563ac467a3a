//! How our time and memory grow with batch, text, image and beams.

use super::setup::Setup;
use super::worker::Worker;

/// Runs of each size; the fastest counts, for growth is of the work, not of its disturbances.
const RUNS: usize = 3;

/// MiB above the peak of loading under which growth is not that of the work: it lies below that peak.
const HIDDEN: f64 = 32.0;

/// An axis: what grows, the sizes, and the work of a size.
type Axis = (&'static str, &'static [usize], fn(usize) -> String);

const AXES: [Axis; 4] = [
    ("train step: batch", &[1, 2, 4, 8, 16, 32], |size| {
        format!("train batch={size} text=16")
    }),
    (
        "train step: text tokens",
        &[8, 16, 32, 64, 128, 256],
        |size| format!("train batch=4 text={size}"),
    ),
    (
        "ViT forward: image tokens",
        &[197, 401, 677, 1025],
        |tokens| {
            // Patches of 16 pixels, and a class token.
            format!("vit batch=2 size={}", 16 * (tokens - 1).isqrt())
        },
    ),
    ("caption: beams", &[1, 2, 4, 8, 16], |size| {
        format!("caption batch=1 beams={size} tokens=20 text=1")
    }),
];

/// Prints a table for each axis, and the exponents of a power law through its last two sizes.
pub fn growth(setup: &Setup) -> Result<(), String> {
    let ours = &setup.sides[0];
    for (name, sizes, request) in AXES {
        println!("{name:<26} {:>10} {:>10}", "seconds", "peak MiB");
        let mut points = Vec::new();
        for &size in sizes {
            let mut worker = Worker::start(ours)?;
            let loaded = worker.ask("peak")?;
            let mut seconds = f64::INFINITY;
            // Once more, to warm up.
            for _ in 0..=RUNS {
                seconds = seconds.min(worker.ask(&request(size))?);
            }
            let peak = worker.ask("peak")?;
            println!("{size:>26} {seconds:>10.4} {peak:>10.0}");
            points.push((size as f64, seconds, peak - loaded));
        }
        if let [.., (a, time_a, memory_a), (b, time_b, memory_b)] = points.as_slice() {
            let exponent = |before: f64, after: f64| (after / before).ln() / (b / a).ln();
            let memory = match *memory_a > HIDDEN {
                true => format!("{:.2}", exponent(*memory_a, *memory_b)),
                false => "-".into(),
            };
            println!(
                "{:>26} {:>10.2} {memory:>10}",
                "exponent at the end",
                exponent(*time_a, *time_b),
            );
        }
    }
    Ok(())
}
