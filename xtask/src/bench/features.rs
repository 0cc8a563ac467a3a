//! `cargo xtask bench features [CONFIG]`: the same training with and without the feature cache.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use super::{median, run};
use crate::build::{build_blip2, root, tuned};

/// Rounds of one run without and one with the cache.
const ROUNDS: usize = 3;
/// Steps that are left out of a run's mean while caches and clocks settle.
const WARM_UP: usize = 3;
/// The built-in comparisons, and the images of each of their runs: 20 steps.
const CONFIGS: [(&str, usize); 2] = [
    ("configs/emoji-scenes.toml", 480),
    ("xtask/bench/small.toml", 160),
];

/// What one run says of itself.
struct Run {
    images_per_s: f64,
    losses: Vec<String>,
}

/// Alternates runs without and with the cache, checks that every loss is the same, and prints the
/// ratio of their images a second. Filling the cache is not counted: it happens once.
pub fn features(backend: &str, arguments: &[String]) -> Result<ExitCode, String> {
    let configs: Vec<(PathBuf, usize)> = match arguments {
        [] => CONFIGS
            .map(|(config, images)| (root().join(config), images))
            .into(),
        paths => paths
            .iter()
            .map(|path| (PathBuf::from(path), CONFIGS[0].1))
            .collect(),
    };
    let blip2 = build_blip2(backend, false)?;
    println!(
        "{:<16} {:>12} {:>12} {:>8}",
        "config", "images/s", "with cache", "ratio"
    );
    for (config, images) in configs {
        let (mut plain, mut cached) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let without = train(&blip2, (&config, images), "none", round)?;
            let with = train(&blip2, (&config, images), "memory", round)?;
            if without.losses != with.losses {
                return Err(format!("{}: the losses differ", config.display()));
            }
            plain.push(without.images_per_s);
            cached.push(with.images_per_s);
        }
        let (plain, cached) = (median(plain), median(cached));
        let name = config.file_stem().unwrap_or_default().to_string_lossy();
        println!(
            "{name:<16} {plain:>12.1} {cached:>12.1} {:>8.2}",
            cached / plain
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn train(
    blip2: &Path,
    (config, images): (&Path, usize),
    cache: &str,
    round: usize,
) -> Result<Run, String> {
    let out = root().join(format!("target/bench-features/{cache}-{round}"));
    if out.exists() {
        std::fs::remove_dir_all(&out).map_err(|error| error.to_string())?;
    }
    let mut command = tuned(blip2);
    command
        .args(["train", "--config"])
        .arg(config)
        .arg("--out")
        .arg(&out)
        .args(["--set", "data.test=[]", "--set", "data.val.limit=8"])
        .args([
            "--set",
            "evaluation.val_captions=1",
            "--set",
            "train.epochs=1",
        ])
        .args(["--set", &format!("data.train.limit={images}")])
        .args(["--set", &format!("features.cache={cache}")])
        .args(["--set", "features.dtype=f32"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    run(&mut command, &format!("training {}", config.display()))?;
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl"))
        .map_err(|error| format!("metrics.jsonl: {error}"))?;
    let lines: Vec<&str> = metrics
        .lines()
        .filter(|line| line.contains("\"kind\":\"train\""))
        .collect();
    let field = |line: &str, key: &str| -> Option<String> {
        let start = line.find(&format!("\"{key}\":"))? + key.len() + 3;
        let end = start + line[start..].find([',', '}'])?;
        Some(line[start..end].to_string())
    };
    let losses: Option<Vec<String>> = lines.iter().map(|line| field(line, "loss")).collect();
    let (mut images, mut seconds) = (0.0, 0.0);
    for line in lines.iter().skip(WARM_UP) {
        let number = |key| field(line, key).and_then(|text| text.parse::<f64>().ok());
        if let (Some(items), Some(rate)) = (number("items"), number("items_per_s")) {
            images += items;
            seconds += items / rate;
        }
    }
    Ok(Run {
        images_per_s: images / f64::max(seconds, 1e-9),
        losses: losses
            .filter(|losses| !losses.is_empty())
            .ok_or("metrics.jsonl has no steps")?,
    })
}
