//! What recomputation and weights in fewer bits cost and save in a step of training:
//!
//! ```text
//! recompute_cost CONFIG [KEY=VALUE…]
//! ```
//!
//! trains the captioner of a recipe, with random weights where its files are not there, on random pixels and
//! captions of `max_txt_len` tokens. It prints the loss before the first step, what all weights take as they are
//! kept, the seconds of a step, what waits for the backward pass when that begins, and the most that lived at once
//! besides weights, gradients and the optimizer's moments. Losses of one precision alone compare: which random
//! weights are drawn first depends on it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use blip2::Blip2Caption;
use blip2_data::batch::CaptionSample;
use blip2_train::optim::optimizer;
use blip2_train::recipe_file;
use blip2_train::tasks::CaptionTask;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Tensor};

type Failure = Box<dyn std::error::Error>;

/// Steps whose time counts; one before warms up.
const STEPS: usize = 5;
const LEARNING_RATE: f64 = 1e-5;
const MIB: f64 = (1 << 20) as f64;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let config = arguments
        .next()
        .ok_or("usage: recompute_cost CONFIG [KEY=VALUE…]")?;
    let recipe = recipe_file::read(&PathBuf::from(config), &arguments.collect::<Vec<_>>())?;
    let config = recipe
        .model
        .as_ref()
        .ok_or("the recipe trains no captioner")?;
    let pool = rayon::ThreadPoolBuilder::new().build()?;
    pool.install(|| {
        let device = Device::default().autodiff();
        device.seed(recipe.seed);
        let model = config.init(&device).map_err(|error| error.to_string())?;
        let samples = samples(&model, recipe.train.batch_size, config.max_txt_len)?;
        let [height, width] = config.data_preprocessor.size;
        let shape = [samples.len(), 3, height, width];
        let pixels = Distribution::Normal(0.0, 1.0);
        let images = Tensor::<4>::random(shape, pixels, &device.clone().inner());
        // Weights are drawn when they are first looked at; a graph is freed by its backward pass.
        let losses = model.loss(images.clone(), &samples);
        drop(losses.map_err(|error| error.to_string())?.loss.backward());
        let weights = TOTAL.load(Relaxed);
        let mut run = Run {
            optimizer: optimizer(&recipe.optimizer),
            task: Some(CaptionTask { model }),
            images,
            samples,
        };
        let mut steps = Vec::new();
        for _ in 0..=STEPS {
            steps.push(run.step().map_err(|error| error.to_string())?);
        }
        let first = steps.remove(0);
        steps.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let median = &steps[STEPS / 2];
        println!(
            "loss {:.6}, weights {:.0} MiB, {:.2} s a step, {:.0} MiB wait for the backward pass, at most \
             {:.0} MiB at once",
            first.loss,
            weights as f64 / MIB,
            median.seconds,
            median.waiting as f64 / MIB,
            median.peak as f64 / MIB,
        );
        Ok::<(), String>(())
    })?;
    Ok(())
}

/// A caption of so many tokens for each image.
fn samples(
    model: &Blip2Caption,
    count: usize,
    tokens: usize,
) -> Result<Vec<CaptionSample>, String> {
    let sample = CaptionSample {
        image_id: String::new(),
        // It is cut to `max_txt_len`.
        text: Some("a ".repeat(4 * tokens)),
        prompt: None,
        pred_caption: None,
        predictions: Vec::new(),
    };
    let ids = model
        .tokenizer()
        .encode(sample.text.as_deref().unwrap_or_default());
    match ids.map_err(|error| error.to_string())?.len() >= tokens {
        true => Ok(vec![sample; count]),
        false => Err("the caption is too short".into()),
    }
}

struct Run {
    task: Option<CaptionTask>,
    optimizer: ModuleOptimizer,
    images: Tensor<4>,
    samples: Vec<CaptionSample>,
}

struct Step {
    loss: f32,
    seconds: f64,
    /// Bytes.
    waiting: isize,
    peak: isize,
}

impl Run {
    fn step(&mut self) -> Result<Step, Failure> {
        let task = self.task.take().ok_or("no model")?;
        let started = Instant::now();
        begin();
        let loss = task.model.loss(self.images.clone(), &self.samples)?.loss;
        let waiting = LIVE.load(Relaxed);
        let gradients = loss.backward();
        let peak = end();
        let gradients = GradientsParams::from_grads(gradients, &task);
        let loss = loss.into_scalar::<f32>();
        self.task = Some(self.optimizer.step(LEARNING_RATE, task, gradients));
        Ok(Step {
            loss,
            seconds: started.elapsed().as_secs_f64(),
            waiting,
            peak,
        })
    }
}

/// What was allocated and freed, in order.
const EVENTS: usize = 1 << 21;
static ADDRESSES: [AtomicUsize; EVENTS] = [const { AtomicUsize::new(0) }; EVENTS];
static SIZES: [AtomicIsize; EVENTS] = [const { AtomicIsize::new(0) }; EVENTS];
static NEXT: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicIsize = AtomicIsize::new(0);
/// Bytes that live, recorded or not.
static TOTAL: AtomicIsize = AtomicIsize::new(0);
static RECORDING: AtomicBool = AtomicBool::new(false);

fn begin() {
    LIVE.store(0, Relaxed);
    NEXT.store(0, Relaxed);
    RECORDING.store(true, Relaxed);
}

/// The most that lived at once of what is not alive any more: what is are gradients.
fn end() -> isize {
    RECORDING.store(false, Relaxed);
    let count = NEXT.load(Relaxed);
    assert!(count <= EVENTS, "more allocations than there is room for");
    let event = |index: usize| (ADDRESSES[index].load(Relaxed), SIZES[index].load(Relaxed));
    let mut freed = vec![false; count];
    let mut born: HashMap<usize, usize> = HashMap::new();
    for index in 0..count {
        let (address, size) = event(index);
        if size > 0 {
            born.insert(address, index);
        } else if let Some(birth) = born.remove(&address) {
            (freed[birth], freed[index]) = (true, true);
        } else {
            // It was there before.
            freed[index] = true;
        }
    }
    let (mut live, mut peak) = (0, 0);
    for (index, freed) in freed.into_iter().enumerate() {
        if freed {
            live += event(index).1;
            peak = peak.max(live);
        }
    }
    peak
}

struct Recorder;

#[global_allocator]
static ALLOCATOR: Recorder = Recorder;

fn record(address: *mut u8, size: isize) {
    TOTAL.fetch_add(size, Relaxed);
    if RECORDING.load(Relaxed) {
        LIVE.fetch_add(size, Relaxed);
        let index = NEXT.fetch_add(1, Relaxed);
        if index < EVENTS {
            ADDRESSES[index].store(address as usize, Relaxed);
            SIZES[index].store(size, Relaxed);
        }
    }
}

#[allow(
    unsafe_code,
    reason = "an allocator can't be written otherwise; all methods are the system's"
)]
// SAFETY: every method passes on what it gets to the system's, and what that gives back.
unsafe impl GlobalAlloc for Recorder {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let address = unsafe { System.alloc(layout) };
        record(address, layout.size() as isize);
        address
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let address = unsafe { System.alloc_zeroed(layout) };
        record(address, layout.size() as isize);
        address
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        record(address, -(layout.size() as isize));
        unsafe { System.dealloc(address, layout) }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        record(address, -(layout.size() as isize));
        let new = unsafe { System.realloc(address, layout, size) };
        record(new, size as isize);
        new
    }
}
