//! Looking a checkpoint through: what it is, what it holds, what fills its gaps.

use std::path::{Path, PathBuf};

use blip2_data::tokenizer::CaptionTokenizer;
use blip2_data::transforms::ImageProcessorConfig;
use blip2_lm::{GenerationConfig, OptConfig};
use blip2_qformer::QFormerConfig;
use blip2_vision::VisionConfig;

use super::architecture::{Architecture, infer_opt, infer_qformer, infer_vision, ln_vision_eps_of};
use super::hugging_face::{CONFIG_FILE, HuggingFaceConfig, read_config, read_generation};
use super::names::{Layout, Meaning, Part};
use super::report::{LoadReport, complete};
use super::source::Source;
use super::weights::Weights;
use crate::presets::{Preset, clip_processor};
use crate::{Blip2Caption, Blip2Error};

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
        let base_weights: Vec<&Weights> = bases.iter().map(|base| &base.weights).collect();
        let (weights, report) = complete(&main.weights, &base_weights, &expected);

        let folders = || origins.iter().filter_map(|origin| origin.folder.as_deref());
        let mut processor = folders()
            .find_map(|folder| ImageProcessorConfig::from_hugging_face(folder).transpose())
            .transpose()?
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
pub(super) struct Origin {
    pub folder: Option<PathBuf>,
    pub config: HuggingFaceConfig,
    pub weights: Weights,
}

impl Origin {
    /// Reads config and table of contents.
    pub fn open(path: &Path) -> Result<Self, Blip2Error> {
        Self::open_with(path, Layout::meaning)
    }

    /// As [`open`](Self::open), where `meaning` says what a key of a layout is.
    pub fn open_with(
        path: &Path,
        meaning: impl Fn(Layout, &str) -> Meaning,
    ) -> Result<Self, Blip2Error> {
        let folder = path.is_dir().then(|| path.to_path_buf());
        let config_file = folder.as_ref().map(|folder| folder.join(CONFIG_FILE));
        let config = match config_file {
            Some(file) if file.is_file() => read_config(&file)?,
            _ => HuggingFaceConfig::default(),
        };
        Ok(Self {
            folder,
            config,
            weights: Weights::with(&Source::open(path)?, meaning)?,
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
