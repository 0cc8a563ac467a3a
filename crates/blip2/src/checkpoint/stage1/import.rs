//! From files to a model of stage 1.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blip2_data::tokenizer::BertTokenizer;
use blip2_data::transforms::ImageProcessorConfig;
use blip2_qformer::{QFormerConfig, QFormerTextConfig};
use burn::tensor::Device;

use super::names;
use crate::checkpoint::architecture::{infer_qformer, infer_vision, list, ln_vision_eps_of};
use crate::checkpoint::fill::{Expected, Meter, Precision, Progress, fill, fill_known};
use crate::checkpoint::import::Origin;
use crate::checkpoint::names::{Address, Layout, Part};
use crate::checkpoint::report::{LoadReport, complete};
use crate::checkpoint::weights::Weights;
use crate::presets::clip_processor;
use crate::stage1::{
    Blip2Qformer, HeadsConfig, SameImage, Settings, Stage1Architecture, Stage1Bridge, Stage1Parts,
};
use crate::{Blip2Error, Compute, Tower};

/// LAVIS cuts texts to this where it scores retrieval.
const LAVIS_MAX_TXT_LEN: usize = 35;
/// LAVIS's first temperature, for layouts that have none.
const TEMPERATURE: f64 = 0.07;
const LABEL_SMOOTHING: f64 = 0.1;

/// What to import, and what to fill its gaps with.
#[derive(Debug, Clone, Default)]
pub struct Stage1Import {
    /// A folder or a file: transformers, LAVIS or this program's own.
    pub path: PathBuf,
    /// Where missing weights (of the image encoder) and the tokenizer are taken from, in this order.
    pub bases: Vec<PathBuf>,
    /// A folder with the tokenizer, if not that of checkpoint or base.
    pub tokenizer: Option<PathBuf>,
}

/// A checkpoint of stage 1 that was looked through, but not read yet.
#[derive(Debug)]
pub struct Stage1Checkpoint {
    /// The dimensions.
    pub architecture: Stage1Architecture,
    /// Where every tensor comes from.
    pub report: LoadReport,
    /// How images become tensors.
    pub processor: ImageProcessorConfig,
    /// The folder or file of the tokenizer, if there is one.
    pub tokenizer: Option<PathBuf>,
    weights: Weights,
}

impl Stage1Import {
    /// Looks through configs and tables of contents. No tensor is read.
    ///
    /// # Errors
    ///
    /// Broken files, dimensions that nothing says, a checkpoint without the heads of stage 1.
    pub fn open(&self) -> Result<Stage1Checkpoint, Blip2Error> {
        let main = Origin::open_with(&self.path, names::meaning)?;
        let bases = self
            .bases
            .iter()
            .map(|base| Origin::open_with(base, names::meaning))
            .collect::<Result<Vec<_>, _>>()?;
        let origins: Vec<&Origin> = std::iter::once(&main).chain(&bases).collect();
        let architecture = architecture(&self.path, &origins)?;
        let base_weights: Vec<&Weights> = bases.iter().map(|base| &base.weights).collect();
        let (weights, mut report) =
            complete(&main.weights, &base_weights, &expected(&architecture)?);
        // What the layout has no place for is made new.
        let has_place = |key: &String| !key.starts_with("heads.");
        report.missing.retain(has_place);
        let folders = || origins.iter().filter_map(|origin| origin.folder.as_deref());
        let mut processor = folders()
            .find_map(|folder| ImageProcessorConfig::from_hugging_face(folder).transpose())
            .transpose()?
            .unwrap_or_else(|| clip_processor(architecture.vision.image_size));
        processor.size = [architecture.vision.image_size; 2];
        let tokenizer = self.tokenizer.clone().or_else(|| {
            folders()
                .find(|folder| BertTokenizer::is_in(folder))
                .map(Path::to_path_buf)
        });
        Ok(Stage1Checkpoint {
            architecture,
            report,
            processor,
            tokenizer,
            weights,
        })
    }
}

impl Stage1Checkpoint {
    /// Reads the tensors and makes the model. The image encoder is frozen; its matrices are kept as
    /// `precision` says, everything else in f32.
    ///
    /// # Errors
    ///
    /// Missing or unexpected keys, other shapes, unreadable or non-finite values, a tokenizer that
    /// is not there or does not fit.
    pub fn load(
        &self,
        device: &Device,
        precision: Precision,
        progress: Option<Progress>,
    ) -> Result<Blip2Qformer, Blip2Error> {
        self.report.check()?;
        let Some(tokenizer) = &self.tokenizer else {
            return Err(Blip2Error::Format {
                path: self.report.path.clone(),
                reason: "has no tokenizer beside it (tokenizer.json or vocab.txt of BERT): name \
                         a folder that has"
                    .into(),
            });
        };
        let bytes = self
            .weights
            .tensors
            .values()
            .map(|weight| weight.shape.iter().product::<usize>() * weight.dtype.size());
        let meter = progress.map(|tell| Meter::new(bytes.sum::<usize>() as u64, tell));
        let (weights, meter) = (&self.weights, meter.as_ref());
        let frozen = &device.clone().inner();
        let vision = self.architecture.vision.init(frozen)?;
        let vision = fill(
            vision,
            Part::VisionBackbone,
            weights,
            precision,
            meter,
            frozen,
        )?;
        let bridge = self.architecture.init_bridge(device)?;
        let parts = Stage1Parts {
            vision: Tower::new(vision, true),
            bridge: fill_bridge(bridge, weights, meter, device)?,
            architecture: self.architecture.clone(),
        };
        let positions = self.architecture.qformer.text.as_ref();
        let positions = positions.map_or(0, |text| text.max_position_embeddings);
        let settings = Settings {
            tokenizer: BertTokenizer::from_file(tokenizer)?,
            max_txt_len: match weights.layout {
                Layout::Lavis(_) => LAVIS_MAX_TXT_LEN.min(positions),
                _ => positions,
            },
            label_smoothing: LABEL_SMOOTHING,
            same_image: SameImage::Negative,
            multimodal_compute: Compute::F32,
            recompute_vision_backbone: false,
        };
        parts.assemble(settings, Compute::F32)
    }
}

/// Gives `model` everything but the image encoder from the checkpoint at `path`, of any layout.
///
/// # Errors
///
/// As [`Stage1Checkpoint::load`]. The model is lost then.
pub fn load_stage1_parts(
    model: Blip2Qformer,
    path: &Path,
    device: &Device,
) -> Result<Blip2Qformer, Blip2Error> {
    let weights = Origin::open_with(path, names::meaning)?.weights;
    let bridge = Stage1Bridge {
        ln_vision: model.ln_vision,
        qformer: model.multimodal_backbone,
        heads: model.heads,
    };
    let bridge = fill_bridge(bridge, &weights, None, device)?;
    Ok(Blip2Qformer {
        ln_vision: bridge.ln_vision,
        multimodal_backbone: bridge.qformer,
        heads: bridge.heads,
        ..model
    })
}

/// All but the image encoder, in f32 whatever the file has. Heads that its layout has no place for
/// stay new.
fn fill_bridge(
    bridge: Stage1Bridge,
    weights: &Weights,
    meter: Option<&Meter>,
    device: &Device,
) -> Result<Stage1Bridge, Blip2Error> {
    let (norm, qformer, all) = (Part::LnVision, Part::MultimodalBackbone, Precision::F32);
    let missing: Vec<String> = list(Part::Heads, &bridge.heads)
        .into_keys()
        .filter(|address| !weights.tensors.contains_key(address))
        .filter(|address| names::has_head(weights.layout, &address.path))
        .map(|address| weights.key(&address))
        .collect();
    if !missing.is_empty() {
        return Err(Blip2Error::Missing {
            path: weights.path.to_path_buf(),
            keys: missing,
        });
    }
    Ok(Stage1Bridge {
        ln_vision: fill(bridge.ln_vision, norm, weights, all, meter, device)?,
        qformer: fill(bridge.qformer, qformer, weights, all, meter, device)?,
        heads: fill_known(bridge.heads, Part::Heads, weights, all, meter, device)?,
    })
}

/// Every tensor of the model.
pub(super) fn expected(
    architecture: &Stage1Architecture,
) -> Result<BTreeMap<Address, Expected>, Blip2Error> {
    let device = Device::default();
    let bridge = architecture.init_bridge(&device)?;
    let vision = architecture.vision.init(&device)?;
    let mut all = list(Part::VisionBackbone, &vision);
    all.append(&mut list(Part::LnVision, &bridge.ln_vision));
    all.append(&mut list(Part::MultimodalBackbone, &bridge.qformer));
    all.append(&mut list(Part::Heads, &bridge.heads));
    Ok(all)
}

fn architecture(path: &Path, origins: &[&Origin]) -> Result<Stage1Architecture, Blip2Error> {
    let weights = &origins[0].weights;
    let rows = |part, name: &str| weights.get(part, name)?.shape.first().copied();
    let qformer = Part::MultimodalBackbone;
    let (Some(vocab_size), Some(max_position_embeddings), Some(embed_dim)) = (
        rows(qformer, "text_embeddings.word_embeddings.weight"),
        rows(qformer, "text_embeddings.position_embeddings.weight"),
        // A weight may be stored either way round.
        rows(Part::Heads, "vision_proj.bias"),
    ) else {
        return Err(Blip2Error::Format {
            path: path.to_path_buf(),
            reason: "is no model of stage 1: it lacks the Q-Former's word embeddings or the \
                     projections of the contrast (captioners have dropped both)"
                .into(),
        });
    };
    let said = |origin: &&Origin| origin.config.vision.clone();
    let vision = match origins.iter().find_map(said) {
        Some(vision) => Some(vision),
        None => {
            let inferred = origins.iter().map(|origin| infer_vision(&origin.weights));
            inferred
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .flatten()
                .next()
        }
    };
    let Some(vision) = vision else {
        return Err(Blip2Error::Format {
            path: path.to_path_buf(),
            reason: "holds no image encoder: name the one that it was trained with as base".into(),
        });
    };
    let known = match &origins[0].config.qformer {
        Some(qformer) => Some(qformer.clone()),
        None => infer_qformer(weights)?,
    };
    let Some(known) = known else {
        return Err(Blip2Error::Format {
            path: path.to_path_buf(),
            reason: "holds no Q-Former".into(),
        });
    };
    let ln_vision_eps = origins[0].config.ln_vision_eps;
    Ok(Stage1Architecture {
        ln_vision_eps: ln_vision_eps.unwrap_or_else(|| ln_vision_eps_of(weights.layout, &vision)),
        vision,
        qformer: QFormerConfig {
            text: Some(QFormerTextConfig {
                vocab_size,
                max_position_embeddings,
                ..QFormerTextConfig::bert_base()
            }),
            ..known
        },
        heads: HeadsConfig {
            embed_dim,
            temperature: TEMPERATURE,
            language: weights.get(Part::Heads, "cls.bias").is_some(),
        },
    })
}
