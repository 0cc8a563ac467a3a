//! From a checkpoint of any known layout to a captioner.

use std::path::{Path, PathBuf};

use blip2_data::tokenizer::CaptionTokenizer;
use blip2_data::transforms::ImageProcessorConfig;
use blip2_lm::{GenerationConfig, OptConfig};
use blip2_qformer::QFormerConfig;
use blip2_vision::VisionConfig;
use burn::tensor::Device;

use super::architecture::{Architecture, infer_opt, infer_qformer, infer_vision, ln_vision_eps_of};
use super::fill::{Meter, Precision, Progress, fill};
use super::hugging_face::{CONFIG_FILE, HuggingFaceConfig, read_config, read_generation};
use super::names::{Layout, Part};
use super::report::{LoadReport, complete};
use super::weights::Weights;
use crate::model::{Parts, TextSettings};
use crate::presets::{Preset, clip_processor};
use crate::{Blip2Caption, Blip2Error, Tower};

/// LAVIS's default length of texts in training.
const LAVIS_MAX_TXT_LEN: usize = 32;

/// What to import, and what to fill its gaps with.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// A folder or a file: transformers, LAVIS, mmpretrain or this program's own.
    pub path: PathBuf,
    /// Where missing weights, configs, tokenizer and preprocessing are taken from, in this order.
    pub bases: Vec<PathBuf>,
    /// What checkpoint and bases do not say of themselves.
    pub preset: Option<Preset>,
    /// A folder with the tokenizer, if not that of checkpoint or base.
    pub tokenizer: Option<PathBuf>,
    /// Another size of images: positions are interpolated.
    pub image_size: Option<usize>,
}

/// A checkpoint that was looked through, but not read yet.
#[derive(Debug)]
pub struct Checkpoint {
    /// The dimensions.
    pub architecture: Architecture,
    /// The weights of checkpoint and bases.
    pub weights: Weights,
    /// Where every tensor comes from.
    pub report: LoadReport,
    /// How images become tensors.
    pub processor: ImageProcessorConfig,
    /// How captions are written.
    pub generation: GenerationConfig,
    /// What stands before every caption.
    pub prompt: String,
    /// The token that stands for an image, where the config names one.
    pub image_token_id: Option<u32>,
    /// The folder with the tokenizer, if there is one.
    pub tokenizer: Option<PathBuf>,
}

/// An imported captioner and its settings.
#[derive(Debug)]
pub struct Imported {
    /// The captioner.
    pub model: Blip2Caption,
    /// How images become tensors.
    pub processor: ImageProcessorConfig,
    /// How captions are written.
    pub generation: GenerationConfig,
    /// Where every tensor came from.
    pub report: LoadReport,
}

impl Import {
    /// The checkpoint at `path` alone.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }

    /// Looks through configs and tables of contents. No tensor is read.
    ///
    /// The report may name missing and unexpected keys: [`Checkpoint::load`] refuses those.
    ///
    /// # Errors
    ///
    /// Broken files, configs of other models, dimensions that nothing says.
    pub fn open(&self) -> Result<Checkpoint, Blip2Error> {
        let main = Origin::open(&self.path)?;
        let bases = self
            .bases
            .iter()
            .map(|base| Origin::open(base))
            .collect::<Result<Vec<_>, _>>()?;
        let mut origins = vec![&main];
        origins.extend(&bases);
        let architecture = self.architecture(&origins)?;

        let expected = architecture.expected()?;
        let base_weights: Vec<Weights> = bases.iter().map(|base| base.weights.clone()).collect();
        let (weights, report) = complete(main.weights.clone(), &base_weights, &expected);

        let folders = || origins.iter().filter_map(|origin| origin.folder.as_deref());
        let mut processor = None;
        for folder in folders() {
            processor = ImageProcessorConfig::from_hugging_face(folder)?;
            if processor.is_some() {
                break;
            }
        }
        let mut processor = processor
            .or_else(|| Some(self.preset.as_ref()?.processor.clone()))
            .unwrap_or_else(|| clip_processor(architecture.vision.image_size));
        // The encoder takes one size only, and images follow it.
        processor.size = [architecture.vision.image_size; 2];
        let mut generation = match &self.preset {
            Some(preset) => preset.generation.clone(),
            None => match folders().next() {
                Some(folder) => read_generation(folder)?,
                None => GenerationConfig::default(),
            },
        };
        generation.penalize_prompt = main.weights.layout == Layout::HuggingFace;
        // The decoder's own config decides in transformers.
        let said = origins.iter().map(|origin| &origin.config.eos_token_ids);
        if let Some(ids) = said.into_iter().find(|ids| !ids.is_empty()) {
            generation.eos_token_ids = ids.clone();
        }
        generation.pad_token_id = architecture.text.pad_token_id;
        let with_tokenizer = |folder: &&Path| CaptionTokenizer::is_in(folder);
        Ok(Checkpoint {
            architecture,
            weights,
            report,
            processor,
            generation,
            prompt: self
                .preset
                .as_ref()
                .map_or("", |preset| preset.prompt)
                .into(),
            image_token_id: origins
                .iter()
                .find_map(|origin| origin.config.image_token_id),
            tokenizer: self
                .tokenizer
                .clone()
                .or_else(|| folders().find(with_tokenizer).map(Path::to_path_buf)),
        })
    }

    /// Each part from the first that says it: configs, the preset, the weights themselves.
    fn architecture(&self, origins: &[&Origin]) -> Result<Architecture, Blip2Error> {
        let configs = || origins.iter().map(|origin| &origin.config);
        let preset = self.preset.as_ref();
        let vision = first(
            configs().find_map(|config| config.vision.clone()),
            preset.map(|preset| preset.vision.clone()),
            origins,
            infer_vision,
        )?;
        let qformer: Option<QFormerConfig> = first(
            configs().find_map(|config| config.qformer.clone()),
            preset.map(|preset| preset.qformer.clone()),
            origins,
            infer_qformer,
        )?;
        let text: Option<OptConfig> = first(
            configs().find_map(|config| config.text.clone()),
            preset.and_then(|preset| preset.text.clone()),
            origins,
            infer_opt,
        )?;
        let (Some(mut vision), Some(qformer), Some(text)) = (vision, qformer, text) else {
            return Err(Blip2Error::Format {
                path: self.path.clone(),
                reason: "does not hold a whole captioner (image encoder, Q-Former, language \
                         model) and no config says what is missing: name the model that it was \
                         trained from as base, or a preset"
                    .into(),
            });
        };
        // A checkpoint that was trained on larger images than its base has larger positions.
        if let Some(trained) = origins.iter().find_map(|origin| origin.image_size(&vision)) {
            vision.image_size = trained;
        }
        vision.image_size = self.image_size.unwrap_or(vision.image_size);
        vision.validate()?;
        let ln_vision_eps = configs()
            .find_map(|config| config.ln_vision_eps)
            .or_else(|| Some(preset?.ln_vision_eps))
            .unwrap_or_else(|| ln_vision_eps_of(origins[0].weights.layout, &vision));
        if qformer.encoder_hidden_size != vision.hidden_size {
            return Err(Blip2Error::Config {
                field: "multimodal_backbone.encoder_hidden_size".into(),
                reason: format!(
                    "is {}, but the image encoder is {} wide: checkpoint and base do not belong \
                     together",
                    qformer.encoder_hidden_size, vision.hidden_size
                ),
            });
        }
        Ok(Architecture {
            vision,
            ln_vision_eps,
            qformer,
            text,
        })
    }
}

fn first<T>(
    said: Option<T>,
    preset: Option<T>,
    origins: &[&Origin],
    infer: impl Fn(&Weights) -> Result<Option<T>, Blip2Error>,
) -> Result<Option<T>, Blip2Error> {
    if let Some(said) = said.or(preset) {
        return Ok(Some(said));
    }
    for origin in origins {
        if let Some(inferred) = infer(&origin.weights)? {
            return Ok(Some(inferred));
        }
    }
    Ok(None)
}

/// A checkpoint or a base: its weights, and the folder and config beside them.
struct Origin {
    folder: Option<PathBuf>,
    config: HuggingFaceConfig,
    weights: Weights,
}

impl Origin {
    fn open(path: &Path) -> Result<Self, Blip2Error> {
        let folder = path.is_dir().then(|| path.to_path_buf());
        let config_file = folder.as_ref().map(|folder| folder.join(CONFIG_FILE));
        let config = match config_file {
            Some(file) if file.is_file() => read_config(&file)?,
            _ => HuggingFaceConfig::default(),
        };
        Ok(Self {
            folder,
            config,
            weights: Weights::open(path)?,
        })
    }

    /// The size of images that the positions in this file were trained for.
    fn image_size(&self, vision: &VisionConfig) -> Option<usize> {
        // A config beside the weights knows better.
        if let Some(config) = &self.config.vision {
            return Some(config.image_size);
        }
        let positions = self
            .weights
            .get(Part::VisionBackbone, "position_embedding")?;
        let tokens = *positions.shape.iter().rev().nth(1)?;
        Some(tokens.checked_sub(1)?.isqrt() * vision.patch_size)
    }
}

impl Checkpoint {
    /// Reads the tensors, one after the other, and makes the captioner. The matrices of the two
    /// towers are kept as `precision` says, everything else in f32; the towers are frozen.
    ///
    /// # Errors
    ///
    /// Missing or unexpected keys, other shapes, unreadable or non-finite values, a tokenizer that
    /// is not there or does not fit. Nothing is made then.
    pub fn load(
        &self,
        device: &Device,
        precision: Precision,
        progress: Option<Progress>,
    ) -> Result<Imported, Blip2Error> {
        self.report.check()?;
        let tokenizer = self.read_tokenizer()?;
        let frozen = device.clone().inner();
        let modules = self.architecture.init(&frozen, device)?;
        let meter = progress.map(|tell| Meter::new(self.bytes(precision), tell));
        let (weights, meter) = (&self.weights, meter.as_ref());
        let all = Precision::F32;
        let parts = Parts {
            vision: Tower::new(
                fill(
                    modules.vision,
                    Part::VisionBackbone,
                    weights,
                    precision,
                    meter,
                    &frozen,
                )?,
                true,
            ),
            ln_vision: fill(
                modules.ln_vision,
                Part::LnVision,
                weights,
                all,
                meter,
                device,
            )?,
            qformer: fill(
                modules.qformer,
                Part::MultimodalBackbone,
                weights,
                all,
                meter,
                device,
            )?,
            neck: fill(modules.neck, Part::VisionNeck, weights, all, meter, device)?,
            text: Tower::new(
                fill(
                    modules.text,
                    Part::TextBackbone,
                    weights,
                    precision,
                    meter,
                    &frozen,
                )?,
                true,
            ),
            architecture: self.architecture.clone(),
        };
        let eos_token_ids = match self.generation.eos_token_ids.as_slice() {
            [] => vec![tokenizer.eos_id()],
            said => said.to_vec(),
        };
        let model = parts.assemble(TextSettings {
            eos_token_ids,
            image_token_id: self.image_token_id,
            tokenizer,
            prompt: self.prompt.clone(),
            max_txt_len: self.max_txt_len(),
            num_captions: 1,
            score_bos: false,
        })?;
        Ok(Imported {
            model,
            processor: self.processor.clone(),
            generation: self.generation.clone(),
            report: self.report.clone(),
        })
    }

    /// LAVIS cuts texts, transformers does not.
    fn max_txt_len(&self) -> usize {
        let text = &self.architecture.text;
        let room = text
            .max_position_embeddings
            .saturating_sub(self.architecture.qformer.num_query_tokens);
        match self.weights.layout {
            Layout::Lavis(_) => room.min(LAVIS_MAX_TXT_LEN),
            _ => room,
        }
    }

    /// The tokenizer, with the ids that the language model's config names.
    ///
    /// # Errors
    ///
    /// If there is none, or it can't be read.
    pub fn read_tokenizer(&self) -> Result<CaptionTokenizer, Blip2Error> {
        let Some(folder) = &self.tokenizer else {
            return Err(Blip2Error::Format {
                path: self.report.path.clone(),
                reason: "has no tokenizer beside it (tokenizer.json, or vocab.json and \
                         merges.txt): name a folder that has"
                    .into(),
            });
        };
        let text = &self.architecture.text;
        let tokenizer = CaptionTokenizer::with_ids(folder, text.bos_token_id, text.pad_token_id)?;
        Ok(tokenizer)
    }

    /// Bytes of all tensors as they will be kept.
    fn bytes(&self, precision: Precision) -> u64 {
        let towers = [Part::VisionBackbone, Part::TextBackbone];
        let bytes = self.weights.tensors.iter().map(|(address, weight)| {
            let half = towers.contains(&address.part) && weight.shape.len() == 2;
            let dtype = if half { precision } else { Precision::F32 }.of(weight.dtype);
            weight.shape.iter().product::<usize>() * dtype.size()
        });
        bytes.sum::<usize>() as u64
    }
}

/// Gives `model` the trained parts (queries, Q-Former, LayerNorm, neck) of the checkpoint at `path`,
/// of any layout; its towers are passed over.
///
/// # Errors
///
/// As [`Checkpoint::load`]. The model is lost then.
pub fn load_trained_parts(
    model: Blip2Caption,
    path: &Path,
    device: &Device,
) -> Result<Blip2Caption, Blip2Error> {
    let weights = Weights::open(path)?;
    let all = Precision::F32;
    Ok(Blip2Caption {
        ln_vision: fill(model.ln_vision, Part::LnVision, &weights, all, None, device)?,
        multimodal_backbone: fill(
            model.multimodal_backbone,
            Part::MultimodalBackbone,
            &weights,
            all,
            None,
            device,
        )?,
        vision_neck: fill(
            model.vision_neck,
            Part::VisionNeck,
            &weights,
            all,
            None,
            device,
        )?,
        ..model
    })
}

/// Reads an image encoder from a folder or file of any layout that has one. `architecture` says
/// what the file can't (a bare `.pth`), and may ask for another size of images.
///
/// # Errors
///
/// As [`Import::open`] and [`Checkpoint::load`]; keys of other parts are passed over.
pub fn load_vision(
    path: &Path,
    architecture: Option<&VisionConfig>,
    device: &Device,
) -> Result<(VisionConfig, blip2_vision::VisionTransformer), Blip2Error> {
    let origin = Origin::open(path)?;
    let said = architecture.cloned().or(origin.config.vision);
    let config = match said {
        Some(config) => config,
        None => infer_vision(&origin.weights)?.ok_or_else(|| no_tower(path, "image encoder"))?,
    };
    let module = config.init(device)?;
    let part = Part::VisionBackbone;
    let strict = matches!(origin.weights.layout, Layout::Vision(_));
    // Published encoders have a block more than BLIP-2 uses.
    let beyond = |path: &str| block_index(path).is_some_and(|at| at >= config.num_hidden_layers);
    check_tower(
        &origin.weights,
        part,
        &super::architecture::list(part, &module),
        strict,
        beyond,
    )?;
    let module = fill(module, part, &origin.weights, Precision::F32, None, device)?;
    Ok((config, module))
}

/// Reads an OPT language model from a folder or file of any layout that has one.
///
/// # Errors
///
/// As [`load_vision`].
pub fn load_opt(
    path: &Path,
    architecture: Option<&OptConfig>,
    device: &Device,
) -> Result<(OptConfig, blip2_lm::Opt), Blip2Error> {
    let origin = Origin::open(path)?;
    let said = architecture.cloned().or(origin.config.text);
    let config = match said {
        Some(config) => config,
        None => infer_opt(&origin.weights)?.ok_or_else(|| no_tower(path, "OPT language model"))?,
    };
    let module = config.init(device)?;
    let part = Part::TextBackbone;
    let strict = origin.weights.layout == Layout::Opt;
    let expected = super::architecture::list(part, &module);
    check_tower(&origin.weights, part, &expected, strict, |_| false)?;
    let module = fill(module, part, &origin.weights, Precision::F32, None, device)?;
    Ok((config, module))
}

fn check_tower(
    weights: &Weights,
    part: Part,
    expected: &std::collections::BTreeMap<super::names::Address, super::fill::Expected>,
    strict: bool,
    beyond: impl Fn(&str) -> bool,
) -> Result<(), Blip2Error> {
    let mut keys: Vec<String> = weights
        .tensors
        .iter()
        .filter(|(address, _)| address.part == part && !expected.contains_key(address))
        .filter(|(address, _)| !beyond(&address.path))
        .map(|(_, weight)| weight.key.clone())
        .collect();
    if strict {
        keys.extend(weights.unexpected.iter().cloned());
    }
    if keys.is_empty() {
        return Ok(());
    }
    let path = weights.path.to_path_buf();
    Err(Blip2Error::Unexpected { path, keys })
}

fn block_index(path: &str) -> Option<usize> {
    path.strip_prefix("blocks.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn no_tower(path: &Path, what: &str) -> Blip2Error {
    Blip2Error::Format {
        path: path.to_path_buf(),
        reason: format!("holds no {what}"),
    }
}
