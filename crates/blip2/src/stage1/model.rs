//! The assembled model of stage 1.

use std::sync::Arc;

use blip2_data::ImageInput;
use blip2_data::tokenizer::BertTokenizer;
use blip2_kernels::LayerNorm;
use blip2_qformer::{QFormer, QFormerConfig};
use blip2_vision::{VisionConfig, VisionTransformer};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{Blip2QformerConfig, Heads, HeadsConfig, SameImage};
use crate::checkpoint::load_bert;
use crate::model::vision_tower;
use crate::{Blip2Error, Compute, Tower};

/// The model of stage 1: a frozen image encoder, and a Q-Former that reads images and text.
///
/// Reference: BLIP-2 (arXiv 2301.12597), section 3.2; LAVIS `Blip2Qformer`, whose field names it
/// has beside those of `Blip2Caption`.
#[derive(Module, Debug)]
pub struct Blip2Qformer {
    /// The image encoder.
    pub vision_backbone: Tower<VisionTransformer>,
    /// Normalises the image encoder's output; trained.
    pub ln_vision: LayerNorm,
    /// The Q-Former with queries and text side.
    pub multimodal_backbone: QFormer,
    /// Projections, matching, words.
    pub heads: Heads,
    #[module(skip)]
    pub(crate) compute: Compute,
    #[module(skip)]
    pub(crate) settings: Arc<Settings>,
    #[module(skip)]
    pub(crate) architecture: Arc<Stage1Architecture>,
}

/// What is no weight.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub tokenizer: BertTokenizer,
    pub max_txt_len: usize,
    pub label_smoothing: f64,
    pub same_image: SameImage,
    pub multimodal_compute: Compute,
    pub recompute_vision_backbone: bool,
}

/// Every dimension of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage1Architecture {
    /// The image encoder.
    pub vision: VisionConfig,
    /// The epsilon of the LayerNorm after it.
    pub ln_vision_eps: f64,
    /// The Q-Former.
    pub qformer: QFormerConfig,
    /// The heads.
    pub heads: HeadsConfig,
}

/// The parts of the model, with their weights.
pub(crate) struct Stage1Parts {
    pub vision: Tower<VisionTransformer>,
    pub bridge: Stage1Bridge,
    pub architecture: Stage1Architecture,
}

/// What is trained.
pub(crate) struct Stage1Bridge {
    pub ln_vision: LayerNorm,
    pub qformer: QFormer,
    pub heads: Heads,
}

impl Stage1Architecture {
    /// What is trained, random.
    pub(crate) fn init_bridge(&self, device: &Device) -> Result<Stage1Bridge, Blip2Error> {
        Ok(Stage1Bridge {
            ln_vision: LayerNorm::new(self.vision.hidden_size, self.ln_vision_eps, device),
            qformer: self.qformer.init(device)?,
            heads: self.heads.init(&self.qformer, device),
        })
    }
}

impl Stage1Parts {
    /// Puts the parts together, if they and the tokenizer fit each other.
    pub fn assemble(
        self,
        settings: Settings,
        compute: Compute,
    ) -> Result<Blip2Qformer, Blip2Error> {
        let Stage1Architecture {
            vision, qformer, ..
        } = &self.architecture;
        let rows = qformer.text.as_ref().map_or(0, |text| text.vocab_size);
        let largest = settings.tokenizer.largest_id();
        if largest as usize >= rows {
            return Err(Blip2Error::Config {
                field: "stage1.multimodal_backbone.text.vocab_size".into(),
                reason: format!(
                    "is {rows}, but the largest token id of {} is {largest} ([DEC] is counted: it \
                     comes after BERT's own)",
                    settings.tokenizer.path().display()
                ),
            });
        }
        if qformer.encoder_hidden_size != vision.hidden_size {
            return Err(Blip2Error::Config {
                field: "stage1.multimodal_backbone.encoder_hidden_size".into(),
                reason: format!(
                    "is {}, but the image encoder is {} wide",
                    qformer.encoder_hidden_size, vision.hidden_size
                ),
            });
        }
        Ok(Blip2Qformer {
            vision_backbone: self.vision,
            ln_vision: self.bridge.ln_vision,
            multimodal_backbone: self.bridge.qformer,
            heads: self.bridge.heads,
            compute,
            settings: Arc::new(settings),
            architecture: Arc::new(self.architecture),
        })
    }
}

impl Blip2QformerConfig {
    /// Makes the model: the image encoder from its file (or random), the Q-Former from `bert` or
    /// random. `init_cfg` is left to the caller, who knows run folders.
    ///
    /// # Errors
    ///
    /// A field that is wrong, a file that can't be read, weights that do not fit, or a tokenizer
    /// with more tokens than the Q-Former embeds.
    pub fn init(&self, device: &Device) -> Result<Blip2Qformer, Blip2Error> {
        let vision = self.resolved(device)?.vision_backbone;
        let compute = vision.compute;
        let (vision_config, vision) = vision_tower(&vision, device)?;
        let architecture = Stage1Architecture {
            vision: vision_config,
            ln_vision_eps: self.ln_vision_eps,
            qformer: self.multimodal_backbone.clone(),
            heads: HeadsConfig {
                embed_dim: self.embed_dim,
                temperature: self.temperature,
                language: true,
            },
        };
        let mut bridge = architecture.init_bridge(device)?;
        if let Some(bert) = &self.bert {
            bridge = load_bert(bridge, &architecture, bert, device)?;
        }
        let parts = Stage1Parts {
            vision,
            bridge,
            architecture,
        };
        let settings = Settings {
            tokenizer: BertTokenizer::from_file(&self.tokenizer)?,
            max_txt_len: self.max_txt_len,
            label_smoothing: self.label_smoothing,
            same_image: self.same_image,
            multimodal_compute: self.multimodal_compute,
            recompute_vision_backbone: self.recompute_vision_backbone,
        };
        parts.assemble(settings, compute)
    }
}

impl Blip2Qformer {
    /// The tokenizer of the Q-Former's text side.
    pub fn tokenizer(&self) -> &BertTokenizer {
        &self.settings.tokenizer
    }

    /// The dimensions of every part.
    pub fn architecture(&self) -> &Stage1Architecture {
        &self.architecture
    }

    /// The precision in which the image encoder multiplies.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// What the image encoder makes of the images.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, height, width]`, normalised; or, from a frozen image encoder,
    ///   `image_embeds`, which are returned as they are
    /// - returns: `[batch, image_tokens, vision_width]`
    pub fn image_embeds(&self, images: impl Into<ImageInput>) -> Tensor<3> {
        self.vision_backbone.image_embeds(
            images.into(),
            self.compute,
            self.settings.recompute_vision_backbone,
        )
    }

    /// What the Q-Former reads of the images: their embeddings, normed.
    ///
    /// # Shapes
    /// - returns: `[batch, image_tokens, vision_width]`
    pub fn normed_embeds(&self, images: impl Into<ImageInput>) -> Tensor<3> {
        self.ln_vision.forward(self.image_embeds(images))
    }
}
