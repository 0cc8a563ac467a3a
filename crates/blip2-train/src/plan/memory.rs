//! How much memory a run needs: what is held throughout, and what each phase needs besides.

use serde::Serialize;

use super::captioning;
use super::dry_run::Kernels;
use super::model::{Captioner, Model, Step};
use super::work::F32;
use super::workload::{Captions, Workload};

/// What the program holds itself, its libraries, threads and tables included: measured on the smallest
/// models.
const PROGRAM: usize = 48 << 20;

/// How often all that learns is in memory besides while a checkpoint is written: the weight and its two
/// moments as records, from which files are written; and the average of the weights, if there is one.
const CHECKPOINT_COPIES: usize = 3;

/// What a run does when it needs the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Forward, backward and the optimizer's step.
    Training,
    /// A checkpoint is written.
    Checkpoint,
    /// The image encoder's features are computed.
    Features,
    /// Images are captioned.
    Captioning,
}

impl Phase {
    /// In an error's words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Checkpoint => "writing a checkpoint",
            Self::Features => "computing features",
            Self::Captioning => "captioning",
        }
    }

    /// The field that says its batch.
    pub fn field(self) -> &'static str {
        match self {
            Self::Training | Self::Checkpoint => "train.batch_size",
            Self::Features | Self::Captioning => "evaluation.batch_size",
        }
    }
}

/// Something that takes memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Item {
    /// What it is.
    pub what: String,
    /// Its bytes.
    pub bytes: usize,
}

/// What a phase needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Need {
    /// The phase.
    pub phase: Phase,
    /// All that is alive at its worst moment.
    pub bytes: usize,
    /// What takes the most of it.
    pub largest: Item,
}

/// The memory of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Memory {
    /// What there is, part by part; not all of it is there at the same time.
    pub items: Vec<Item>,
    /// The phases.
    pub phases: Vec<Need>,
}

impl Memory {
    /// Of `workload` with `batch` images in training, whose step is `step`.
    pub fn new(workload: &Workload, batch: usize, step: &Step, kernels: Kernels) -> Self {
        // A device of its own holds neither the program nor what is on its way to a file.
        let shared = kernels == Kernels::Fused;
        let host = |bytes: usize| if shared { bytes } else { 0 };
        let mut items = Vec::new();
        let mut add = |what: String, bytes: usize| {
            if bytes > 0 {
                items.push(Item { what, bytes });
            }
            bytes
        };
        let program = add("the program".into(), host(PROGRAM));
        let parts = step.parameters.parts();
        let weights = parts.iter().map(|&part| {
            let bytes = step.parameters.bytes(part);
            add(format!("weights, {part}"), bytes)
        });
        let weights: usize = weights.sum();
        let learned = step.parameters.learned() * F32;
        let gradients = learned * if workload.accumulation > 1 { 2 } else { 1 };
        add("gradients".into(), gradients);
        let moments = add("AdamW's two moments".into(), 2 * learned);
        let average = add(
            "average of the weights".into(),
            if workload.averages { learned } else { 0 },
        );
        let cache = add("feature cache".into(), host(cache_bytes(workload)));
        let ahead = add(
            "batches read ahead".into(),
            workload.ahead * batch_bytes(workload, batch),
        );
        for (part, &bytes) in &step.kept {
            add(format!("activations, {part}"), bytes);
        }
        let kept: usize = step.kept.values().sum();
        let worst = step.tape.peak();
        add("temporaries".into(), worst.saturating_sub(kept));
        let held = program + weights + moments + average + cache;
        let accumulated = gradients - learned;
        let training = held + ahead + accumulated + worst.max(2 * learned);
        let mut phases = vec![(Phase::Training, training)];
        if shared {
            let copies = CHECKPOINT_COPIES * learned + average;
            phases.push((Phase::Checkpoint, held + ahead + copies));
        }
        if workload.cache.is_some() {
            let encode = workload
                .model
                .encode(workload.features_batch, kernels)
                .peak();
            phases.push((Phase::Features, program + weights + cache + encode));
        }
        if let (Model::Caption(model), Some(captions)) = (&workload.model, &workload.captions) {
            let needs = captioning::memory(model, captions, kernels);
            add("key/value cache of captions".into(), needs.cache);
            phases.push((Phase::Captioning, held + needs.peak));
        }
        let phases = phases
            .into_iter()
            .map(|(phase, bytes)| Need {
                phase,
                bytes,
                largest: largest(&items, phase),
            })
            .collect();
        Self { items, phases }
    }

    /// The phase that needs the most.
    pub fn worst(&self) -> &Need {
        let worst = self.phases.iter().max_by_key(|need| need.bytes);
        worst.expect("there is always training")
    }
}

/// Of captions alone, besides the weights.
pub fn captioning_alone(model: &Captioner, captions: &Captions) -> Need {
    let needs = captioning::memory(model, captions, Kernels::Fused);
    let cache = Item {
        what: "key/value cache of captions".into(),
        bytes: needs.cache,
    };
    let rest = Item {
        what: "activations of captions".into(),
        bytes: needs.peak - needs.cache,
    };
    Need {
        phase: Phase::Captioning,
        bytes: needs.peak,
        largest: if cache.bytes > rest.bytes {
            cache
        } else {
            rest
        },
    }
}

/// Of a step of training by `step`, besides the weights: what waits for the backward pass, gradients, and the
/// moments of AdamW.
pub fn step_alone(step: &Step) -> Need {
    let learned = step.parameters.learned() * F32;
    let mut items = vec![
        ("gradients".to_string(), learned),
        ("AdamW's two moments".to_string(), 2 * learned),
    ];
    let kept = step.kept.iter();
    items.extend(kept.map(|(part, &bytes)| (format!("activations, {part}"), bytes)));
    let items: Vec<Item> = items
        .into_iter()
        .map(|(what, bytes)| Item { what, bytes })
        .collect();
    Need {
        phase: Phase::Training,
        bytes: 2 * learned + step.tape.peak().max(2 * learned),
        largest: largest(&items, Phase::Training),
    }
}

fn largest(items: &[Item], phase: Phase) -> Item {
    let of_phase = |item: &&Item| match phase {
        Phase::Training => true,
        _ => !item.what.starts_with("activations") && item.what != "temporaries",
    };
    let largest = items.iter().filter(of_phase).max_by_key(|item| item.bytes);
    largest.expect("a model has weights").clone()
}

fn cache_bytes(workload: &Workload) -> usize {
    match (&workload.cache, workload.model.vision()) {
        (Some(cache), Some(vision)) if cache.in_memory => {
            let numbers = vision.num_tokens() * vision.hidden_size;
            cache.views.unwrap_or(0) * numbers * cache.bits / 8
        }
        _ => 0,
    }
}

/// What a loader makes for a step: pixels, or embeddings.
fn batch_bytes(workload: &Workload, images: usize) -> usize {
    let Some(vision) = workload.model.vision() else {
        return 0;
    };
    let numbers = match workload.cache {
        Some(_) => vision.num_tokens() * vision.hidden_size,
        None => vision.num_channels * vision.image_size * vision.image_size,
    };
    images * numbers * F32
}

/// Bytes in words: `1.2 GiB`, `345 MiB`.
pub fn words(bytes: usize) -> String {
    let mebibytes = bytes as f64 / (1 << 20) as f64;
    match mebibytes {
        large if large >= 1024.0 => format!("{:.1} GiB", large / 1024.0),
        small if small < 10.0 => format!("{small:.1} MiB"),
        other => format!("{other:.0} MiB"),
    }
}
