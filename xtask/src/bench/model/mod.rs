//! `cargo xtask bench model`: the same work here and in PyTorch with transformers, side by side.

mod growth;
mod setup;
mod worker;

use std::fmt::Write;
use std::process::ExitCode;

use self::setup::Setup;
use self::worker::Worker;
use super::median;

/// Rounds; in each, every side does every work once.
const ROUNDS: usize = 5;

/// What each side is asked to do: a name for the table, and the worker's words.
fn works(shape: &str, images: &str) -> Vec<(&'static str, String)> {
    let batch = if shape == "base" { 4 } else { 8 };
    vec![
        ("train step", format!("train batch={batch} text=16")),
        (
            "train step, cached",
            format!("cached batch={batch} text=16"),
        ),
        ("ViT forward", format!("vit batch={batch} size=224")),
        (
            "caption, greedy",
            "caption batch=1 beams=1 tokens=20 text=1".into(),
        ),
        (
            "caption, 5 beams",
            "caption batch=1 beams=5 tokens=20 text=1".into(),
        ),
        ("preprocess", format!("preprocess images={images}")),
    ]
}

/// One line of the table.
struct Line {
    work: String,
    /// Seconds or MiB of each side; none where it did not run.
    sides: Vec<Option<f64>>,
}

/// Runs the comparison for the shapes named in `arguments` (both without one).
pub fn model(backend: &str, arguments: &[String]) -> Result<ExitCode, String> {
    let json = arguments.iter().any(|argument| argument == "--json");
    let growing = arguments.iter().any(|argument| argument == "--growth");
    let named: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let shapes: Vec<&str> = match named.as_slice() {
        [] => vec!["small", "base"],
        names => names.iter().map(|name| name.as_str()).collect(),
    };
    for shape in shapes {
        let setup = Setup::new(backend, shape)?;
        if growing {
            growth::growth(&setup)?;
            continue;
        }
        let lines = compare(&setup, shape)?;
        let names: Vec<&str> = setup.sides.iter().map(|side| side.name).collect();
        match json {
            true => println!("{}", to_json(shape, &names, &lines)),
            false => print!("{}", to_table(shape, &names, &lines)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(setup: &Setup, shape: &str) -> Result<Vec<Line>, String> {
    let images = setup.images.display().to_string();
    let works = works(shape, &images);
    let mut workers = Vec::new();
    for side in &setup.sides {
        workers.push(Worker::start(side)?);
    }
    let count = workers.len();
    // A side that can't do a work (torch.compile without a compiler, say) is left out of it.
    let mut able = vec![vec![true; works.len()]; count];
    let mut seconds = vec![vec![Vec::new(); works.len()]; count];
    for round in 0..=ROUNDS {
        eprintln!(
            "{shape}: round {round} of {ROUNDS}{}",
            if round == 0 { ", to warm up" } else { "" }
        );
        for (index, (_, request)) in works.iter().enumerate() {
            for (side, worker) in workers.iter_mut().enumerate() {
                if !able[side][index] {
                    continue;
                }
                match worker.ask(request) {
                    Ok(found) if round > 0 => seconds[side][index].push(found),
                    Ok(_) => {}
                    Err(reason) => {
                        eprintln!("{}: {request}: {reason}", setup.sides[side].name);
                        able[side][index] = false;
                        *worker = Worker::start(&setup.sides[side])?;
                    }
                }
            }
        }
    }
    drop(workers);
    let mut lines: Vec<Line> = works
        .iter()
        .enumerate()
        .map(|(index, (work, _))| Line {
            work: format!("{work}, s"),
            sides: (0..count)
                .map(|side| {
                    let found = seconds[side][index].clone();
                    (able[side][index] && !found.is_empty()).then(|| median(found))
                })
                .collect(),
        })
        .collect();
    let (mut loading, mut load_peaks, mut train_peaks) = (Vec::new(), Vec::new(), Vec::new());
    for side in &setup.sides {
        let (mut loads, mut peak) = (Vec::new(), None);
        for _ in 0..ROUNDS {
            let mut worker = Worker::start(side)?;
            loads.push(worker.load_seconds);
            peak = worker.ask("peak").ok();
        }
        loading.push(Some(median(loads)));
        load_peaks.push(peak);
        let mut worker = Worker::start(side)?;
        let (_, request) = &works[0];
        let trained = worker.ask(request).and_then(|_| worker.ask(request));
        train_peaks.push(trained.and_then(|_| worker.ask("peak")).ok());
    }
    for (work, sides) in [
        ("load, s", loading),
        ("load, peak MiB", load_peaks),
        ("train step, peak MiB", train_peaks),
    ] {
        lines.push(Line {
            work: work.into(),
            sides,
        });
    }
    Ok(lines)
}

/// Each side's number, and the [`ratios`].
fn to_table(shape: &str, names: &[&str], lines: &[Line]) -> String {
    let mut table = format!("{shape:<22}");
    for name in names {
        let _ = write!(table, " {name:>15}");
    }
    let _ = writeln!(table, " {:>10} {:>10}", "f32", "best");
    for line in lines {
        let _ = write!(table, "{:<22}", line.work);
        for side in &line.sides {
            let _ = match side {
                Some(number) => write!(table, " {number:>15.4}"),
                None => write!(table, " {:>15}", "-"),
            };
        }
        for ratio in ratios(names, line) {
            let _ = match ratio {
                Some(ratio) => write!(table, " {ratio:>9.2}x"),
                None => write!(table, " {:>10}", "-"),
            };
        }
        table.push('\n');
    }
    table
}

/// What PyTorch in f32 takes of what we take in f32, and PyTorch at its best of ours at its best.
fn ratios(names: &[&str], line: &Line) -> [Option<f64>; 2] {
    let least = |start: &str| {
        let found = names.iter().zip(&line.sides);
        found
            .filter(|(name, _)| name.starts_with(start))
            .filter_map(|(_, number)| *number)
            .min_by(f64::total_cmp)
    };
    let ratio = |theirs: &str, ours: &str| Some(least(theirs)? / least(ours)?);
    [ratio("torch f32", "blip2 f32"), ratio("torch", "blip2")]
}

fn to_json(shape: &str, names: &[&str], lines: &[Line]) -> String {
    let number = |number: Option<f64>| number.map_or("null".into(), |number| number.to_string());
    let lines: Vec<String> = lines
        .iter()
        .map(|line| {
            let sides: Vec<String> = names
                .iter()
                .zip(&line.sides)
                .map(|(name, side)| format!("\"{name}\":{}", number(*side)))
                .collect();
            let [f32, best] = ratios(names, line).map(number);
            format!(
                "{{\"work\":\"{}\",\"sides\":{{{}}},\"to_torch_f32\":{f32},\"to_torch_best\":{best}}}",
                line.work,
                sides.join(",")
            )
        })
        .collect();
    format!("{{\"shape\":\"{shape}\",\"lines\":[{}]}}", lines.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_compare_our_f32_with_theirs() {
        let line = Line {
            work: "train step, s".into(),
            sides: vec![Some(2.0), Some(1.0), Some(5.0), Some(3.0), None],
        };
        let names = [
            "blip2 f32",
            "blip2 bf16",
            "torch f32",
            "torch bf16",
            "torch compile",
        ];
        assert_eq!(ratios(&names, &line), [Some(2.5), Some(3.0)]);
        let json = to_json("small", &names, &[line]);
        assert!(json.contains("\"to_torch_best\":3") && json.contains("\"torch compile\":null"));
    }
}
