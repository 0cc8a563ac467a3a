//! The assembled captioner.

use std::sync::Arc;

use blip2_data::ImageInput;
use blip2_data::tokenizer::CaptionTokenizer;
use blip2_kernels::LayerNorm;
use blip2_lm::{CausalLm, Opt};
use blip2_qformer::{QFormer, VisionNeck};
use blip2_vision::{VisionConfig, VisionTransformer};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::checkpoint::{Architecture, Bridge, load_opt, load_vision};
use crate::lora::AdaptedLayer;
use crate::{Blip2CaptionConfig, Blip2Error, Recompute, Tower, TowerCompute, TowerConfig};

/// BLIP-2 captioning: a frozen image encoder, a Q-Former between, a frozen language model.
///
/// `loss` is what training minimises, `predict` makes captions. The trained parts live on the
/// device given to [`Blip2CaptionConfig::init`] (an autodiff device for training), frozen towers on its
/// plain side.
///
/// Reference: BLIP-2 (arXiv 2301.12597), section 3; field names as in mmpretrain's `Blip2Caption`.
#[derive(Module, Debug)]
pub struct Blip2Caption {
    /// The image encoder.
    pub vision_backbone: Tower<VisionTransformer>,
    /// Normalises the image encoder's output; trained, as in LAVIS.
    pub ln_vision: Tower<LayerNorm>,
    /// The Q-Former with its query tokens.
    pub multimodal_backbone: Tower<QFormer>,
    /// Projects the queries to the language model's width.
    pub vision_neck: Tower<VisionNeck>,
    /// The language model.
    pub text_backbone: Tower<Opt>,
    #[module(skip)]
    pub(crate) compute: TowerCompute,
    #[module(skip)]
    pub(crate) recompute: Recompute,
    /// The layers that have adapters.
    #[module(skip)]
    pub(crate) lora: Arc<Vec<AdaptedLayer>>,
    #[module(skip)]
    pub(crate) text: Arc<TextSettings>,
    #[module(skip)]
    pub(crate) architecture: Arc<Architecture>,
}

/// What the model knows about text.
#[derive(Debug, Clone)]
pub(crate) struct TextSettings {
    pub tokenizer: CaptionTokenizer,
    /// The tokens that end a caption.
    pub eos_token_ids: Vec<u32>,
    /// What stands for a query in transformers' prompts.
    pub image_token_id: Option<u32>,
    pub prompt: String,
    pub max_txt_len: usize,
    pub num_captions: usize,
    pub score_bos: bool,
}

/// The parts of a captioner, with their weights.
pub(crate) struct Parts {
    pub vision: Tower<VisionTransformer>,
    pub bridge: Bridge,
    pub text: Tower<Opt>,
    pub architecture: Architecture,
}

impl Parts {
    /// Puts the parts together, if they and the tokenizer fit each other.
    pub fn assemble(self, text: TextSettings) -> Result<Blip2Caption, Blip2Error> {
        let Architecture {
            vision, qformer, ..
        } = &self.architecture;
        let lm = self.text.get();
        let largest = text.tokenizer.largest_id();
        if largest as usize >= lm.vocab_size() {
            return Err(Blip2Error::Vocabulary {
                path: text.tokenizer.path().to_path_buf(),
                largest,
                rows: lm.vocab_size(),
            });
        }
        let needed = qformer.num_query_tokens + text.max_txt_len;
        if needed > lm.max_positions() {
            return Err(Blip2Error::Config {
                field: "model.max_txt_len".into(),
                reason: format!(
                    "with the queries a caption takes {needed} positions, but the language model \
                     has {}",
                    lm.max_positions()
                ),
            });
        }
        if qformer.encoder_hidden_size != vision.hidden_size {
            return Err(Blip2Error::Config {
                field: "model.multimodal_backbone.encoder_hidden_size".into(),
                reason: format!(
                    "is {}, but the image encoder is {} wide",
                    qformer.encoder_hidden_size, vision.hidden_size
                ),
            });
        }
        Ok(Blip2Caption {
            vision_backbone: self.vision,
            ln_vision: Tower::Trained(self.bridge.ln_vision),
            multimodal_backbone: Tower::Trained(self.bridge.qformer),
            vision_neck: Tower::Trained(self.bridge.neck),
            text_backbone: self.text,
            compute: TowerCompute::default(),
            recompute: Recompute::default(),
            lora: Arc::default(),
            text: Arc::new(text),
            architecture: Arc::new(self.architecture),
        })
    }
}

impl Blip2CaptionConfig {
    /// Makes the captioner: towers from their files (or random), the trained parts random.
    /// `init_cfg` is left to the caller, who knows run folders, and then `lora`
    /// ([`Blip2Caption::with_lora`]).
    ///
    /// # Errors
    ///
    /// A field that is wrong, a file that can't be read, weights that do not fit, or a tokenizer
    /// that does not belong to the language model.
    pub fn init(&self, device: &Device) -> Result<Blip2Caption, Blip2Error> {
        let config = self.resolved(device)?;
        let (vision_config, vision) = vision_tower(&config.vision_backbone, device)?;
        let text = &config.text_backbone;
        let (text_config, lm) = tower(text, device, |config, device| match &config.weights {
            Some(path) => load_opt(path, config.architecture.as_ref(), config.dtype, device),
            None => made(config, |config| Ok(config.init(device)?)),
        })?;
        let tokenizer = CaptionTokenizer::from_file(&self.tokenizer)?;
        let architecture = Architecture {
            vision: vision_config,
            ln_vision_eps: self.ln_vision_eps,
            qformer: self.multimodal_backbone.clone(),
            text: text_config,
        };
        let parts = Parts {
            vision,
            bridge: architecture.init_bridge(device)?,
            text: lm,
            architecture,
        };
        let model = parts.assemble(TextSettings {
            eos_token_ids: vec![tokenizer.eos_id()],
            image_token_id: None,
            tokenizer,
            prompt: self.prompt.clone(),
            max_txt_len: self.max_txt_len,
            num_captions: self.num_captions,
            score_bos: self.score_bos,
        })?;
        let model = model.with_compute(TowerCompute {
            vision_backbone: config.vision_backbone.compute,
            multimodal_backbone: config.multimodal_compute,
            text_backbone: config.text_backbone.compute,
        });
        Ok(model.with_recompute(Recompute {
            vision_backbone: config.recompute_vision_backbone,
            text_backbone: config.recompute_text_backbone,
        }))
    }
}

/// The image encoder of `config`.
pub(crate) fn vision_tower(
    config: &TowerConfig<VisionConfig>,
    device: &Device,
) -> Result<(VisionConfig, Tower<VisionTransformer>), Blip2Error> {
    tower(config, device, |config, device| match &config.weights {
        Some(path) => load_vision(path, config.architecture.as_ref(), config.dtype, device),
        None => made(config, |config| Ok(config.init(device)?)),
    })
}

fn tower<C, M: Module>(
    config: &TowerConfig<C>,
    device: &Device,
    make: impl Fn(&TowerConfig<C>, &Device) -> Result<(C, M), Blip2Error>,
) -> Result<(C, Tower<M>), Blip2Error> {
    // Frozen weights never touch the autodiff side, not even while they are loaded.
    let device = if config.frozen {
        device.clone().inner()
    } else {
        device.clone()
    };
    let (architecture, module) = make(config, &device)?;
    Ok((architecture, Tower::new(module, config.frozen)))
}

/// A tower with random weights.
fn made<C: Clone, M: Module>(
    config: &TowerConfig<C>,
    init: impl Fn(&C) -> Result<M, Blip2Error>,
) -> Result<(C, M), Blip2Error> {
    match &config.architecture {
        Some(architecture) => {
            let module = init(architecture)?;
            Ok((architecture.clone(), config.dtype.apply(module)))
        }
        None => unreachable!("validate() asks for weights or an architecture"),
    }
}

impl Blip2Caption {
    /// The tokenizer of the language model.
    pub fn tokenizer(&self) -> &CaptionTokenizer {
        &self.text.tokenizer
    }

    /// The dimensions of every part.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The tokens that end a caption.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.text.eos_token_ids
    }

    /// The same model with another prompt.
    pub fn with_prompt(mut self, prompt: &str) -> Self {
        self.text = Arc::new(TextSettings {
            prompt: prompt.to_string(),
            ..(*self.text).clone()
        });
        self
    }

    /// The same model, whose parts multiply in other precisions.
    pub fn with_compute(mut self, compute: TowerCompute) -> Self {
        self.compute = compute;
        self
    }

    /// The precisions in which the parts multiply.
    pub fn compute(&self) -> TowerCompute {
        self.compute
    }

    /// The same model, whose parts keep a graph or are recomputed.
    pub fn with_recompute(mut self, recompute: Recompute) -> Self {
        self.recompute = recompute;
        self
    }

    /// What the language model reads of the images.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, height, width]`, normalised; or, from a frozen image encoder,
    ///   `image_embeds`: `[batch, image_tokens, vision_width]`
    /// - returns: `[batch, num_query_tokens, language_model_width]`
    pub fn visual_prefix(&self, images: impl Into<ImageInput>) -> Tensor<3> {
        self.visual_prefix_with_taps(images, &mut |_, _| {})
    }

    /// What the image encoder makes of the images.
    ///
    /// # Shapes
    /// - `images`: as in [`visual_prefix`](Self::visual_prefix); embeddings are returned as they are
    /// - returns: `[batch, image_tokens, vision_width]`
    pub fn image_embeds(&self, images: impl Into<ImageInput>) -> Tensor<3> {
        self.vision_backbone.image_embeds(
            images.into(),
            self.compute.vision_backbone,
            self.recompute.vision_backbone,
        )
    }

    /// Shows `tap` the tensors between the images and the language model by name, in order; returns the
    /// last, which [`visual_prefix`](Self::visual_prefix) gives.
    pub fn visual_prefix_with_taps(
        &self,
        images: impl Into<ImageInput>,
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let image_embeds = self.image_embeds(images);
        tap("image_embeds", &image_embeds);
        let normed = self.ln_vision.forward(image_embeds);
        tap("ln_vision", &normed);
        self.compute.multimodal_backbone.products().during(|| {
            let query_output = self.multimodal_backbone.forward(normed);
            tap("query_output", &query_output);
            let prefix = self.vision_neck.forward(query_output);
            tap("vision_neck", &prefix);
            prefix
        })
    }
}
