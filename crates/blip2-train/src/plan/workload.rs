//! What a recipe asks for, in numbers: the model's dimensions, batches, texts, images, captions.

use std::path::Path;

use blip2::checkpoint::{Architecture, Precision as Kept, opt_dimensions, vision_dimensions};
use blip2::lora::{LoraConfig, LoraParts, Quantization};
use blip2::presets;
use blip2::stage1::Blip2QformerConfig;
use blip2::{Blip2CaptionConfig, Compute, TowerConfig};
use blip2_data::annotations::{LoadOptions, OnError, load};
use blip2_data::batch::CaptionChoice;
use blip2_data::emoji_scenes::EmojiScenesConfig;
use blip2_data::sample::Sample;
use blip2_kernels::Bits;
use blip2_lm::OptConfig;
use blip2_qformer::QFormerConfig;
use blip2_vision::VisionConfig;

use super::model::{Batch, Captioner, Model, Stage1};
use super::texts::Texts;
use super::towers::{Adapters, Keeping};
use super::work::Precision;
use crate::RunError;
use crate::features::{CacheKind, FeatureDType};
use crate::recipe::{EvaluationConfig, Recipe, SplitConfig};

/// A run in numbers.
#[derive(Debug, Clone)]
pub struct Workload {
    /// What is trained.
    pub model: Model,
    /// Images (or documents) a batch.
    pub batch: usize,
    /// Batches an optimizer step.
    pub accumulation: usize,
    /// Passes over the train split.
    pub epochs: usize,
    /// Items of an epoch; none if the data are not there to count.
    pub items: Option<usize>,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// How long texts are.
    pub texts: Texts,
    /// Image embeddings that are computed once.
    pub cache: Option<Cache>,
    /// Images at once where features are computed and splits are evaluated.
    pub features_batch: usize,
    /// Batches that wait in memory beside the one in use.
    pub ahead: usize,
    /// Whether gradients are scaled to a norm.
    pub clips: bool,
    /// Whether an average of the weights is kept.
    pub averages: bool,
    /// Captions after each epoch and at the end.
    pub captions: Option<Captions>,
}

/// Image embeddings that are computed once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cache {
    /// Views of all images, of train and validation; none if the data are not there to count.
    pub views: Option<usize>,
    /// Bits of a number.
    pub bits: usize,
    /// Whether they lie in memory.
    pub in_memory: bool,
}

/// Captions that are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Captions {
    /// Images a batch.
    pub batch: usize,
    /// Texts kept at each step, the most of validation and tests.
    pub beams: usize,
    /// Tokens that are written, at most.
    pub new_tokens: usize,
    /// Tokens before them, BOS included, queries not.
    pub prompt: usize,
    /// Validation images, and beams of theirs.
    pub val: Option<(usize, usize)>,
    /// Images whose validation loss is computed.
    pub val_loss: Option<usize>,
    /// Test images, of all splits.
    pub test: Option<usize>,
}

impl Workload {
    /// What `recipe` asks for. Annotations are counted, and their texts measured, where they are there and
    /// `counts`; models of the hub are taken from the presets.
    ///
    /// # Errors
    ///
    /// A tower whose dimensions are said nowhere, or files that are broken.
    pub fn new(recipe: &Recipe, counts: bool) -> Result<Self, RunError> {
        let train = recipe.data.train.as_ref().filter(|_| counts);
        let samples = train.and_then(|split| samples(split, recipe));
        let model = model(recipe)?;
        let texts = Texts::new(recipe, samples.as_deref())?;
        let count = |split: &SplitConfig, built_in: usize| {
            let there = self::samples(split, recipe).map(|samples| samples.len());
            let built_in = recipe.data.emoji_scenes.is_some().then_some(built_in);
            there.or(built_in.map(|count| count.min(split.limit.unwrap_or(usize::MAX))))
        };
        let scenes = EmojiScenesConfig::default();
        let items = match (&recipe.data.stream, &samples) {
            (Some(stream), _) => Some(stream.epoch_samples),
            (None, Some(samples)) => Some(items_of(recipe, samples)),
            (None, None) => train.and_then(|split| count(split, scenes.train)),
        };
        let val = counts
            .then(|| count(&recipe.data.val, scenes.val))
            .flatten();
        let cache = recipe
            .features
            .as_ref()
            .filter(|features| features.cache != CacheKind::None)
            .map(|features| Cache {
                views: samples
                    .as_ref()
                    .map(Vec::len)
                    .or(items)
                    .map(|images| images * features.views + val.unwrap_or(0)),
                bits: match features.dtype {
                    FeatureDType::F32 => 32,
                    FeatureDType::Bf16 | FeatureDType::F16 => 16,
                },
                in_memory: features.cache == CacheKind::Memory,
            });
        let captions = recipe.evaluation.as_ref().map(|evaluation| {
            let tests = recipe.data.test.iter().filter(|_| counts);
            let tests = tests.map(|split| count(split, scenes.test));
            captions(evaluation, &texts, val, tests.sum())
        });
        Ok(Self {
            model,
            batch: recipe.train.batch_size,
            accumulation: recipe.train.accumulation,
            epochs: recipe.train.epochs,
            items,
            drop_last: recipe.train.drop_last,
            texts,
            cache,
            features_batch: match (&recipe.evaluation, &recipe.retrieval) {
                (Some(evaluation), _) => evaluation.batch_size,
                (None, Some(retrieval)) => retrieval.batch_size,
                (None, None) => recipe.train.batch_size,
            },
            // Each worker has one in hand and two ready (`blip2_data::loader`).
            ahead: 3 * recipe.data.num_workers,
            clips: recipe.optimizer.clip_grad_norm.is_some(),
            averages: recipe.train.ema_decay.is_some(),
            captions,
        })
    }

    /// The batch of `images` that a step sees on average.
    pub fn usual(&self, images: usize) -> Batch {
        Batch {
            images,
            tokens: self.texts.padded(images).round() as usize,
            scored: self.texts.scored,
            cached: self.cache.is_some(),
        }
    }

    /// The batch of `images` that takes the most memory.
    pub fn largest(&self, images: usize) -> Batch {
        Batch {
            tokens: self.texts.longest,
            ..self.usual(images)
        }
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> Option<usize> {
        let items = self.items?;
        Some(match self.drop_last {
            true => items / self.batch,
            false => items.div_ceil(self.batch),
        })
    }

    /// Optimizer steps of the run.
    pub fn steps(&self) -> Option<usize> {
        Some(self.batches()?.div_ceil(self.accumulation) * self.epochs)
    }
}

fn captions(
    evaluation: &EvaluationConfig,
    texts: &Texts,
    val: Option<usize>,
    test: Option<usize>,
) -> Captions {
    let (of_val, of_test) = (&evaluation.val_generation, &evaluation.test_generation);
    let captioned = val.map(|val| match evaluation.val_captions {
        0 => val,
        limit => val.min(limit),
    });
    Captions {
        batch: evaluation.batch_size,
        beams: of_val.num_beams.max(of_test.num_beams),
        new_tokens: of_val.max_new_tokens.max(of_test.max_new_tokens),
        prompt: texts.prompt,
        val: captioned.map(|images| (images, of_val.num_beams)),
        val_loss: val,
        test,
    }
}

/// The entries of a split whose annotation file is there; none if it is not, or is broken, which the run
/// itself will say better.
pub(super) fn samples(split: &SplitConfig, recipe: &Recipe) -> Option<Vec<Sample>> {
    if !split.annotations.is_file() {
        return None;
    }
    let options = LoadOptions {
        format: split.format,
        split: split.split.clone(),
        on_error: OnError::Skip,
        require_captions: recipe.data.on_error == OnError::Skip,
    };
    let mut loaded = load(&split.annotations, &split.images, &options).ok()?;
    loaded.samples.truncate(split.limit.unwrap_or(usize::MAX));
    Some(loaded.samples)
}

fn items_of(recipe: &Recipe, samples: &[Sample]) -> usize {
    match recipe.data.captions {
        CaptionChoice::All => samples.iter().map(|sample| sample.captions.len()).sum(),
        CaptionChoice::Random | CaptionChoice::First => samples.len(),
    }
}

/// A captioner that is in memory already, all of it constant.
pub fn loaded(architecture: &Architecture) -> Captioner {
    let frozen = Keeping::frozen;
    Captioner {
        vision: (architecture.vision.clone(), frozen()),
        between: frozen(),
        qformer: (architecture.qformer.clone(), frozen()),
        text: (architecture.text.clone(), frozen()),
    }
}

/// The dimensions and the state of the model that `recipe` trains.
pub fn model(recipe: &Recipe) -> Result<Model, RunError> {
    if let Some(config) = &recipe.model {
        return Ok(Model::Caption(Box::new(captioner(config)?)));
    }
    if let Some(config) = &recipe.stage1 {
        return Ok(Model::Stage1(Box::new(stage1(config)?)));
    }
    if let Some(config) = &recipe.language_model {
        return Ok(Model::Language(config.architecture.clone()));
    }
    match &recipe.patch_classification {
        Some(config) => Ok(Model::Patches(config.architecture.clone())),
        None => Err(RunError::Usage("the recipe trains nothing".into())),
    }
}

fn captioner(config: &Blip2CaptionConfig) -> Result<Captioner, RunError> {
    let lora = &config.lora;
    let vision = vision_of(&config.vision_backbone, "model.vision_backbone")?;
    let text = opt_of(&config.text_backbone, "model.text_backbone")?;
    let image = Keeping {
        recompute: config.recompute_vision_backbone,
        ..keeping(&config.vision_backbone, lora.vision_backbone.as_ref())
    };
    let language = Keeping {
        recompute: config.recompute_text_backbone,
        ..keeping(&config.text_backbone, lora.text_backbone.as_ref())
    };
    Ok(Captioner {
        vision: (vision, image),
        between: match lora.adapters_only {
            true => Keeping::frozen(),
            false => Keeping::trained(),
        },
        qformer: (config.multimodal_backbone.clone(), qformer_keeping(lora)),
        text: (text, language),
    })
}

fn stage1(config: &Blip2QformerConfig) -> Result<Stage1, RunError> {
    let qformer: QFormerConfig = config.multimodal_backbone.clone();
    let vision = vision_of(&config.vision_backbone, "stage1.vision_backbone")?;
    let image = Keeping {
        recompute: config.recompute_vision_backbone,
        ..keeping(&config.vision_backbone, None)
    };
    Ok(Stage1 {
        vision: (vision, image),
        qformer,
        embed_dim: config.embed_dim,
    })
}

fn keeping<C>(tower: &TowerConfig<C>, lora: Option<&LoraConfig>) -> Keeping {
    let bits = match tower.dtype {
        Kept::F16 | Kept::BF16 | Kept::Int8 | Kept::Int4 => 16,
        Kept::F32 | Kept::Stored => 32,
    };
    let adapted = adapted(lora);
    let rounded = match tower.dtype {
        Kept::Int8 => Some(Bits::Eight),
        Kept::Int4 => Some(Bits::Four),
        Kept::F32 | Kept::F16 | Kept::BF16 | Kept::Stored => adapted.rounded,
    };
    Keeping {
        learns: !tower.frozen,
        bits,
        rounded,
        precision: match tower.compute {
            Compute::F32 => Precision::F32,
            // The few products that are faster yet are counted as if they were not.
            Compute::BF16 | Compute::INT8 => Precision::Bf16,
        },
        ..adapted
    }
}

fn qformer_keeping(lora: &LoraParts) -> Keeping {
    Keeping {
        learns: lora.multimodal_backbone.is_none() && !lora.adapters_only,
        ..adapted(lora.multimodal_backbone.as_ref())
    }
}

fn adapted(lora: Option<&LoraConfig>) -> Keeping {
    Keeping {
        rounded: lora
            .and_then(|lora| lora.quantize)
            .map(|quantization| match quantization {
                Quantization::Int8 => Bits::Eight,
                Quantization::Int4 => Bits::Four,
            }),
        adapters: lora.map(|lora| Adapters {
            targets: lora.target_modules.clone(),
            rank: lora.r,
        }),
        ..Keeping::frozen()
    }
}

fn vision_of(tower: &TowerConfig<VisionConfig>, field: &str) -> Result<VisionConfig, RunError> {
    dimensions(tower, field, vision_dimensions, |preset| {
        Some(preset.vision)
    })
}

fn opt_of(tower: &TowerConfig<OptConfig>, field: &str) -> Result<OptConfig, RunError> {
    dimensions(tower, field, opt_dimensions, |preset| preset.text)
}

/// From the config, the files, or a published model's name.
fn dimensions<C: Clone>(
    tower: &TowerConfig<C>,
    field: &str,
    read: impl Fn(&Path) -> Result<Option<C>, blip2::Blip2Error>,
    published: impl Fn(presets::Preset) -> Option<C>,
) -> Result<C, RunError> {
    if let Some(architecture) = &tower.architecture {
        return Ok(architecture.clone());
    }
    let found = match &tower.weights {
        Some(path) if path.exists() => read(path)?,
        Some(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let known = presets::NAMES
                .iter()
                .filter(|known| name.starts_with(**known));
            known.copied().find_map(presets::preset).and_then(published)
        }
        None => None,
    };
    found.ok_or_else(|| {
        RunError::Usage(format!(
            "the dimensions of `{field}` are not known here: its weights are not on this machine; \
             write them as `[{field}.architecture]`"
        ))
    })
}
