//! The models that a recipe can train, by their dimensions and how their parts are kept.

use std::collections::BTreeMap;

use blip2_lm::OptConfig;
use blip2_qformer::QFormerConfig;
use blip2_vision::VisionConfig;

mod head;
mod stage1;

use self::head::head;
use super::dry_run::{Kernels, Tape, Tensor};
use super::parameters::Parameters;
use super::towers::{Image, Keeping, Tower};
use super::work::Part;

/// A model with all of its dimensions.
#[derive(Debug, Clone)]
pub enum Model {
    /// `blip2::Blip2Caption`.
    Caption(Box<Captioner>),
    /// `blip2::stage1::Blip2Qformer`.
    Stage1(Box<Stage1>),
    /// A language model alone.
    Language(OptConfig),
    /// An image encoder that names patches.
    Patches(VisionConfig),
}

/// A captioner's dimensions, and how its parts are kept.
#[derive(Debug, Clone)]
pub struct Captioner {
    /// The image encoder.
    pub vision: (VisionConfig, Keeping),
    /// Whether the LayerNorm and the neck learn.
    pub between: Keeping,
    /// The Q-Former.
    pub qformer: (QFormerConfig, Keeping),
    /// The language model.
    pub text: (OptConfig, Keeping),
}

/// A model of stage 1.
#[derive(Debug, Clone)]
pub struct Stage1 {
    /// The image encoder.
    pub vision: (VisionConfig, Keeping),
    /// The Q-Former, which has a text side.
    pub qformer: QFormerConfig,
    /// Channels in which images and texts are compared.
    pub embed_dim: usize,
}

/// What one step reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// Images (or documents).
    pub images: usize,
    /// Tokens of a text, padded to the longest of the batch.
    pub tokens: usize,
    /// Tokens of a text that are scored.
    pub scored: f64,
    /// Whether image embeddings come from a cache.
    pub cached: bool,
}

/// A step of training, seen from the device.
#[derive(Debug)]
pub struct Step {
    /// What was done, before the optimizer.
    pub tape: Tape,
    /// All weights of the model.
    pub parameters: Parameters,
    /// Bytes that waited for the backward pass, by part.
    pub kept: BTreeMap<Part, usize>,
}

impl Model {
    /// Walks through a step of training.
    pub fn step(&self, batch: &Batch, kernels: Kernels) -> Step {
        let mut tape = Tape::new(kernels);
        let mut parameters = Parameters::default();
        let walk = &mut Walk {
            tape: &mut tape,
            parameters: &mut parameters,
        };
        let loss = match self {
            Self::Caption(model) => model.loss(walk, batch),
            Self::Stage1(model) => model.loss(walk, batch),
            Self::Language(config) => language(walk, config, batch),
            Self::Patches(config) => patches(walk, config, batch),
        };
        let kept = tape.kept();
        tape.backward(&loss, 0);
        Step {
            tape,
            parameters,
            kept,
        }
    }

    /// The image encoder, if there is one.
    pub fn vision(&self) -> Option<&VisionConfig> {
        match self {
            Self::Caption(model) => Some(&model.vision.0),
            Self::Stage1(model) => Some(&model.vision.0),
            Self::Language(_) => None,
            Self::Patches(config) => Some(config),
        }
    }

    /// Walks through the image encoder alone, as when features are computed.
    pub fn encode(&self, images: usize, kernels: Kernels) -> Tape {
        let mut tape = Tape::new(kernels);
        let walk = &mut Walk {
            tape: &mut tape,
            parameters: &mut Parameters::default(),
        };
        match self {
            Self::Caption(model) => drop(images_of(walk, &model.vision, images, false)),
            Self::Stage1(model) => drop(images_of(walk, &model.vision, images, false)),
            Self::Language(_) | Self::Patches(_) => {}
        }
        tape
    }
}

/// A tape and the weights that were met.
pub struct Walk<'a> {
    /// What is done.
    pub tape: &'a mut Tape,
    /// What weights there are.
    pub parameters: &'a mut Parameters,
}

impl Walk<'_> {
    /// A tower of the model.
    pub fn tower<'b>(&'b mut self, part: Part, keeping: &'b Keeping) -> Tower<'b> {
        Tower {
            tape: self.tape,
            parameters: self.parameters,
            part,
            keeping,
        }
    }
}

/// Image embeddings, from pixels or as they come. Weights are there in both cases.
fn images_of(
    walk: &mut Walk<'_>,
    (config, keeping): &(VisionConfig, Keeping),
    images: usize,
    cached: bool,
) -> Tensor {
    if !cached {
        let pixels = images * config.num_channels * config.image_size;
        let _pixels = walk.tape.constant(pixels, config.image_size);
        return walk
            .tower(Part::VisionBackbone, keeping)
            .vision(config, images);
    }
    let mut aside = Tape::new(walk.tape.kernels);
    let mut tower = Tower {
        tape: &mut aside,
        parameters: walk.parameters,
        part: Part::VisionBackbone,
        keeping,
    };
    drop(tower.vision(config, 1));
    walk.tape
        .constant(images * config.num_tokens(), config.hidden_size)
}

impl Captioner {
    /// What the language model reads of the images.
    pub fn prefix(&self, walk: &mut Walk<'_>, images: usize, cached: bool) -> Tensor {
        let embeds = images_of(walk, &self.vision, images, cached);
        let normed = walk.tower(Part::LnVision, &self.between).ln_vision(embeds);
        let (config, keeping) = &self.qformer;
        let mut qformer = walk.tower(Part::MultimodalBackbone, keeping);
        let queries = qformer.queries(config, images);
        let image = Image::Embeds(&normed);
        let (queries, _) = qformer.read_image(config, queries, images, image, 0);
        drop(normed);
        let width = self.text.0.word_embed_proj_dim;
        walk.tower(Part::VisionNeck, &self.between)
            .neck(queries, width)
    }

    fn loss(&self, walk: &mut Walk<'_>, batch: &Batch) -> Tensor {
        let prefix = self.prefix(walk, batch.images, batch.cached);
        let (config, keeping) = &self.text;
        let words = walk
            .tower(Part::TextBackbone, keeping)
            .embed(config, batch.images * batch.tokens);
        let (rows, width) = (prefix.rows + words.rows, prefix.width);
        let inputs = walk.tape.copied(&[&prefix, &words], rows, width);
        drop((prefix, words));
        let hidden = decoder(walk, &self.text, inputs, batch.images);
        head(walk, &self.text, hidden, scored(batch))
    }
}

fn scored(batch: &Batch) -> usize {
    ((batch.images as f64 * batch.scored).round() as usize).max(1)
}

/// The whole language model, without cache.
fn decoder(
    walk: &mut Walk<'_>,
    (config, keeping): &(OptConfig, Keeping),
    inputs: Tensor,
    batch: usize,
) -> Tensor {
    let mut lm = walk.tower(Part::TextBackbone, keeping);
    let hidden = lm.enter(config, inputs);
    let hidden = lm.decoder_layers(config, hidden, batch);
    lm.leave(config, hidden)
}

fn language(walk: &mut Walk<'_>, config: &OptConfig, batch: &Batch) -> Tensor {
    let text = (config.clone(), Keeping::trained());
    let rows = batch.images * batch.tokens;
    let inputs = walk.tower(Part::TextBackbone, &text.1).embed(config, rows);
    let hidden = decoder(walk, &text, inputs, batch.images);
    head(walk, &text, hidden, scored(batch))
}

fn patches(walk: &mut Walk<'_>, config: &VisionConfig, batch: &Batch) -> Tensor {
    let trained = Keeping::trained();
    let hidden = images_of(
        walk,
        &(config.clone(), trained.clone()),
        batch.images,
        false,
    );
    let rows = batch.images * config.num_patches();
    let patches = walk.tape.copied(&[&hidden], rows, config.hidden_size);
    let mut head = walk.tower(Part::Head, &trained);
    // As many categories as the built-in data set has drawings and backgrounds.
    let logits = head.head_layer("head", patches, 64);
    walk.tape.activation(logits)
}
