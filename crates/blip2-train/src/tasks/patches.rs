//! An image encoder on what lies in each patch.

use std::sync::Arc;

use blip2_data::DataError;
use blip2_data::annotations::instances::{Instances, LabelledImage};
use blip2_data::images::read_images;
use blip2_data::loader::BatchSource;
use blip2_data::sample::Sample;
use blip2_data::skips::SkipLog;
use blip2_data::transforms::{DecodeLimits, ImageProcessor};
use blip2_kernels::LayerNorm;
use blip2_vision::VisionTransformer;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{Task, TaskError, TaskLoss, impl_steps};

/// Of the norm before the head; torch's and Burn's default.
const NORM_EPSILON: f64 = 1e-5;

/// An image encoder with a linear head that names what each patch shows.
#[derive(Module, Debug)]
pub struct PatchTask {
    /// The image encoder.
    pub model: VisionTransformer,
    norm: LayerNorm,
    head: Linear,
}

impl PatchTask {
    /// A new head for `categories` over `model`.
    pub fn new(model: VisionTransformer, categories: usize, device: &Device) -> Self {
        let width = model.hidden_size();
        Self {
            norm: LayerNorm::new(width, NORM_EPSILON, device),
            head: LinearConfig::new(width, categories).init(device),
            model,
        }
    }
}

/// Images with a category and a weight for each patch.
#[derive(Debug, Clone)]
pub struct PatchBatch {
    images: Tensor<4>,
    categories: Vec<i64>,
    weights: Vec<f32>,
}

impl Task for PatchTask {
    type Batch = PatchBatch;

    const SCORE: &'static str = "object_accuracy";

    fn batch_len(batch: &PatchBatch) -> usize {
        batch.images.dims()[0]
    }

    fn task_loss(&self, batch: PatchBatch) -> Result<TaskLoss, TaskError> {
        let device = batch.images.device();
        let count = batch.categories.len();
        let hidden = self.model.forward(batch.images);
        let [rows, tokens, width] = hidden.dims();
        // The class token has no place, so it has no target.
        let patches = hidden
            .narrow(1, 1, tokens - 1)
            .reshape([rows * (tokens - 1), width]);
        let logits = self.head.forward(self.norm.forward(patches));

        let predicted: Vec<i64> = logits
            .clone()
            .inner()
            .argmax(1)
            .into_data()
            .iter::<i64>()
            .collect();
        let (mut objects, mut correct) = (0usize, 0usize);
        for ((predicted, category), weight) in
            predicted.iter().zip(&batch.categories).zip(&batch.weights)
        {
            let object = *weight >= 1.0;
            objects += usize::from(object);
            correct += usize::from(object && predicted == category);
        }

        let total: f32 = batch.weights.iter().sum();
        let targets = TensorData::new(batch.categories, [count, 1]);
        let weights = Tensor::<2>::from_data(TensorData::new(batch.weights, [count, 1]), &device);
        let scores =
            log_softmax(logits, 1).gather(1, Tensor::<2, Int>::from_data(targets, &device));
        Ok(TaskLoss {
            parts: Vec::new(),
            loss: (scores * weights)
                .sum()
                .neg()
                .div_scalar(total.max(f32::MIN_POSITIVE)),
            count,
            accuracy: Some(correct as f64 / objects.max(1) as f64),
        })
    }
}

impl_steps!(PatchTask);

/// Images with the categories of their patches.
#[derive(Debug)]
pub struct PatchSource {
    instances: Instances,
    samples: Vec<Arc<Sample>>,
    processor: ImageProcessor,
    grid: usize,
    background_weight: f32,
    skips: SkipLog,
}

impl PatchSource {
    /// A source over the images of `instances`, cut into `grid` × `grid` patches.
    pub fn new(
        instances: Instances,
        processor: ImageProcessor,
        grid: usize,
        background_weight: f32,
        skips: SkipLog,
    ) -> Self {
        let samples = instances
            .images
            .iter()
            .map(|image| {
                Arc::new(Sample {
                    image_id: image.image_id.clone(),
                    file_name: image.file_name.clone(),
                    path: image.path.clone(),
                    captions: Vec::new(),
                })
            })
            .collect();
        Self {
            instances,
            samples,
            processor,
            grid,
            background_weight,
            skips,
        }
    }

    /// For each patch in reading order: the smallest box around its centre, and its weight.
    fn targets(&self, image: &LabelledImage) -> (Vec<i64>, Vec<f32>) {
        let patches = self.grid * self.grid;
        let (mut categories, mut weights) =
            (Vec::with_capacity(patches), Vec::with_capacity(patches));
        for row in 0..self.grid {
            for column in 0..self.grid {
                let x = (column as f64 + 0.5) / self.grid as f64 * f64::from(image.width);
                let y = (row as f64 + 0.5) / self.grid as f64 * f64::from(image.height);
                let smallest = image
                    .boxes
                    .iter()
                    .filter(|label| {
                        let [left, top, width, height] = label.bbox;
                        (left..left + width).contains(&x) && (top..top + height).contains(&y)
                    })
                    .min_by(|a, b| (a.bbox[2] * a.bbox[3]).total_cmp(&(b.bbox[2] * b.bbox[3])));
                let (category, weight) = match smallest {
                    Some(label) if self.instances.is_background(label.category) => {
                        (label.category, self.background_weight)
                    }
                    Some(label) => (label.category, 1.0),
                    None => (0, 0.0),
                };
                categories.push(category as i64);
                weights.push(weight);
            }
        }
        (categories, weights)
    }
}

impl BatchSource for PatchSource {
    type Batch = PatchBatch;

    fn num_items(&self) -> usize {
        self.samples.len()
    }

    fn batch(
        &self,
        _epoch: usize,
        items: &[usize],
        device: &Device,
    ) -> Result<PatchBatch, DataError> {
        let samples: Vec<&Sample> = items.iter().map(|&item| &*self.samples[item]).collect();
        let limits = DecodeLimits::default();
        let (images, kept) = read_images(&samples, &self.processor, &limits, &self.skips, device)?;
        let (mut categories, mut weights) = (Vec::new(), Vec::new());
        for row in kept {
            let (patches, patch_weights) = self.targets(&self.instances.images[items[row]]);
            categories.extend(patches);
            weights.extend(patch_weights);
        }
        Ok(PatchBatch {
            images,
            categories,
            weights,
        })
    }
}
