//! Our side of `cargo xtask bench model`: does work that it is told on stdin, and says how long it took.
//!
//! ```text
//! bench_worker FOLDER [f32|bf16]
//! ```
//!
//! loads a captioner in the Hugging Face layout (frozen towers kept and multiplied in the precision) and
//! prints the seconds that took. Then each line `WORK key=value…` is answered by the seconds of one run of it:
//!
//! - `train batch=8 text=16`: one optimizer step; `cached` likewise, from image embeddings
//! - `vit batch=8 size=224`: the image encoder
//! - `caption batch=1 beams=5 tokens=20 text=1`: as many tokens whatever the model says
//! - `preprocess images=DIR`: every file of a folder, decoded and preprocessed
//! - `peak`: the most memory so far, in MiB

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use blip2::checkpoint::{Import, Precision};
use blip2::{Blip2Caption, Compute, Tower, TowerCompute};
use blip2_data::batch::CaptionSample;
use blip2_data::images::{ImageInput, ImageSource, Look, PixelSource};
use blip2_data::sample::Sample;
use blip2_data::skips::{OnError, SkipLog};
use blip2_data::transforms::ImageProcessor;
use blip2_lm::GenerationConfig;
use blip2_train::optim::optimizer;
use blip2_train::out_of_memory::Allocator;
use blip2_train::plan::preflight;
use blip2_train::recipe::OptimizerConfig;
use blip2_train::tasks::CaptionTask;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Tensor};

type Failure = Box<dyn std::error::Error>;

/// Says what was done and which batch would fit, should memory run out.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or("usage: bench_worker FOLDER [f32|bf16|int8]")?;
    let (precision, tower, trained) = match arguments.next().as_deref() {
        Some("int8") => (Precision::BF16, Compute::INT8, Compute::BF16),
        Some("bf16") => (Precision::BF16, Compute::BF16, Compute::BF16),
        _ => (Precision::F32, Compute::F32, Compute::F32),
    };
    let compute = TowerCompute {
        vision_backbone: tower,
        multimodal_backbone: trained,
        text_backbone: tower,
    };
    // As the binary does.
    let pool = rayon::ThreadPoolBuilder::new().build()?;
    pool.install(|| serve(&folder, precision, compute).map_err(|error| error.to_string()))?;
    Ok(())
}

fn serve(folder: &str, precision: Precision, compute: TowerCompute) -> Result<(), Failure> {
    let started = Instant::now();
    let mut worker = Worker::load(Path::new(folder), precision, compute)?;
    answer(started.elapsed().as_secs_f64())?;
    for line in std::io::stdin().lock().lines() {
        answer(worker.work(&Request::parse(&line?))?)?;
    }
    Ok(())
}

fn answer(number: f64) -> std::io::Result<()> {
    println!("{number}");
    std::io::stdout().flush()
}

/// A line of stdin.
struct Request {
    work: String,
    values: Vec<(String, String)>,
}

impl Request {
    fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let work = words.next().unwrap_or_default().to_string();
        let values = words
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        Self { work, values }
    }

    fn text(&self, key: &str) -> Result<&str, Failure> {
        let found = self.values.iter().find(|(name, _)| name == key);
        let (_, value) = found.ok_or_else(|| format!("`{}` needs {key}=…", self.work))?;
        Ok(value)
    }

    fn number(&self, key: &str) -> Result<usize, Failure> {
        Ok(self.text(key)?.parse()?)
    }
}

struct Worker {
    model: Option<CaptionTask>,
    processor: ImageProcessor,
    optimizer: ModuleOptimizer,
    device: Device,
}

impl Worker {
    fn load(folder: &Path, precision: Precision, compute: TowerCompute) -> Result<Self, Failure> {
        let device = Device::default().autodiff();
        let imported = Import::new(folder).open()?.load(&device, precision, None)?;
        let config = OptimizerConfig {
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.05,
            clip_grad_norm: None,
            decay_1d: false,
            lr_layer_decay: 1.0,
        };
        Ok(Self {
            model: Some(CaptionTask {
                model: imported.model.with_compute(compute),
            }),
            processor: imported.processor.init()?,
            optimizer: optimizer(&config),
            device,
        })
    }

    fn model(&self) -> &Blip2Caption {
        &self
            .model
            .as_ref()
            .expect("it is put back after a step")
            .model
    }

    fn work(&mut self, request: &Request) -> Result<f64, Failure> {
        match request.work.as_str() {
            "train" => {
                preflight::step(
                    self.model(),
                    request.number("batch")?,
                    request.number("text")?,
                )?;
                let images = self.images(request.number("batch")?, None);
                self.step(images.into(), request)
            }
            "cached" => {
                let images = self.images(request.number("batch")?, None);
                let embeds = self.model().image_embeds(images);
                self.step(embeds.into(), request)
            }
            "vit" => {
                let size = request.number("size")?;
                let images = self.images(request.number("batch")?, Some(size));
                let mut model = self.model().clone();
                let vit = model.vision_backbone.get().clone().with_image_size(size)?;
                model.vision_backbone = Tower::new(vit, true);
                let started = Instant::now();
                let embeds = model.image_embeds(images);
                embeds.sum().into_scalar::<f32>();
                Ok(started.elapsed().as_secs_f64())
            }
            "caption" => self.caption(request),
            "preprocess" => self.preprocess(Path::new(request.text("images")?)),
            "peak" => peak_mib(),
            other => Err(format!("unknown work `{other}`").into()),
        }
    }

    /// Random pixels on the plain device.
    fn images(&self, batch: usize, size: Option<usize>) -> Tensor<4> {
        let size = size.unwrap_or(self.processor.size().0);
        let shape = [batch, 3, size, size];
        Tensor::random(
            shape,
            Distribution::Normal(0.0, 1.0),
            &self.device.clone().inner(),
        )
    }

    /// A caption that makes rows of `tokens` ids with BOS and the line break.
    fn samples(&self, batch: usize, tokens: usize) -> Result<Vec<CaptionSample>, Failure> {
        let tokenizer = self.model().tokenizer();
        let mut text = "a".to_string();
        while 1 + tokenizer.encode(&format!("{text}\n"))?.len() < tokens {
            text.push_str(" a");
        }
        let sample = CaptionSample {
            image_id: String::new(),
            text: Some(text),
            prompt: None,
            pred_caption: None,
            predictions: Vec::new(),
        };
        Ok(vec![sample; batch])
    }

    fn step(&mut self, images: ImageInput, request: &Request) -> Result<f64, Failure> {
        let samples = self.samples(request.number("batch")?, request.number("text")?)?;
        let started = Instant::now();
        let loss = self.model().loss(images, &samples)?.loss;
        let task = self.model.take().ok_or("no model")?;
        let grads = GradientsParams::from_grads(loss.backward(), &task);
        self.model = Some(self.optimizer.step(1e-5, task, grads));
        Ok(started.elapsed().as_secs_f64())
    }

    fn caption(&self, request: &Request) -> Result<f64, Failure> {
        let tokens = request.number("tokens")?;
        let (batch, beams) = (request.number("batch")?, request.number("beams")?);
        let model = self.model().valid();
        let generation = GenerationConfig {
            num_beams: beams,
            max_new_tokens: tokens,
            min_new_tokens: tokens,
            ..GenerationConfig::default()
        };
        let device = self.device.clone().inner();
        preflight::captioning(&model, &generation, "", batch, &device, false)?;
        let samples = self.samples(batch, 1)?;
        let images = self.images(batch, None);
        let started = Instant::now();
        let captioned = model.predict(images, samples, &generation)?;
        let seconds = started.elapsed().as_secs_f64();
        let made = captioned[0].predictions[0].token_ids.len();
        match made == tokens {
            true => Ok(seconds),
            false => Err(format!("{made} tokens in place of {tokens}").into()),
        }
    }

    fn preprocess(&self, folder: &Path) -> Result<f64, Failure> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        paths.sort();
        let samples: Vec<Sample> = paths
            .into_iter()
            .map(|path| Sample {
                image_id: String::new(),
                file_name: String::new(),
                path,
                captions: Vec::new(),
            })
            .collect();
        let looks: Vec<Look> = (0..samples.len())
            .map(|sample| Look {
                sample,
                view: 0,
                index: sample,
            })
            .collect();
        let skips = SkipLog::new(OnError::Fail);
        let source = PixelSource::new(Arc::new(samples), self.processor.clone(), skips);
        let started = Instant::now();
        source.read(&looks, &self.device.clone().inner())?;
        Ok(started.elapsed().as_secs_f64())
    }
}

/// The peak of this process's resident memory; Linux alone tells.
fn peak_mib() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.ok_or("no VmHWM")?.parse::<f64>()? / 1024.0)
}
