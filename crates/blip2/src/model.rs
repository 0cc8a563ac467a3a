//! The assembled captioner.

use std::path::Path;
use std::sync::Arc;

use blip2_data::tokenizer::CaptionTokenizer;
use blip2_lm::{CausalLm, Opt};
use blip2_qformer::{QFormer, VisionNeck};
use blip2_vision::VisionTransformer;
use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};

use crate::checkpoint::{load_opt, load_vision};
use crate::{Blip2CaptionConfig, Blip2Error, Tower, TowerConfig};

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
    pub ln_vision: LayerNorm,
    /// The Q-Former with its query tokens.
    pub multimodal_backbone: QFormer,
    /// Projects the queries to the language model's width.
    pub vision_neck: VisionNeck,
    /// The language model.
    pub text_backbone: Tower<Opt>,
    #[module(skip)]
    pub(crate) text: Arc<TextSettings>,
}

/// What the model knows about text.
#[derive(Debug)]
pub(crate) struct TextSettings {
    pub tokenizer: CaptionTokenizer,
    pub prompt: String,
    pub max_txt_len: usize,
    pub num_captions: usize,
    pub score_bos: bool,
}

impl Blip2CaptionConfig {
    /// Makes the captioner: towers from their folders (or random), the trained parts random.
    /// `init_cfg` is left to the caller, who knows run folders.
    ///
    /// # Errors
    ///
    /// A field that is wrong, a file that can't be read, weights that do not fit, or a tokenizer
    /// that does not belong to the language model.
    pub fn init(&self, device: &Device) -> Result<Blip2Caption, Blip2Error> {
        self.validate()?;
        let vision = tower(
            &self.vision_backbone,
            device,
            |config, device| Ok(config.init(device)?),
            load_vision,
        )?;
        let vision_width = vision.get().hidden_size();
        let lm = tower(
            &self.text_backbone,
            device,
            |config, device| Ok(config.init(device)?),
            load_opt,
        )?;
        let tokenizer = CaptionTokenizer::from_file(&self.tokenizer)?;
        if tokenizer.vocab_size() > lm.get().vocab_size() {
            return Err(Blip2Error::Config {
                field: "model.tokenizer".into(),
                reason: format!(
                    "has {} tokens, but the language model embeds only {}",
                    tokenizer.vocab_size(),
                    lm.get().vocab_size()
                ),
            });
        }
        let qformer = &self.multimodal_backbone;
        let needed = qformer.num_query_tokens + self.max_txt_len;
        if needed > lm.get().max_positions() {
            return Err(Blip2Error::Config {
                field: "model.max_txt_len".into(),
                reason: format!(
                    "with the queries a caption takes {needed} positions, but the language model \
                     has {}",
                    lm.get().max_positions()
                ),
            });
        }
        if qformer.encoder_hidden_size != vision_width {
            return Err(Blip2Error::Config {
                field: "model.multimodal_backbone.encoder_hidden_size".into(),
                reason: format!(
                    "is {}, but the image encoder is {vision_width} wide",
                    qformer.encoder_hidden_size
                ),
            });
        }
        Ok(Blip2Caption {
            ln_vision: LayerNormConfig::new(vision_width)
                .with_epsilon(self.ln_vision_eps)
                .init(device),
            vision_backbone: vision,
            multimodal_backbone: qformer.init(device)?,
            vision_neck: VisionNeck::new(qformer.hidden_size, lm.get().hidden_size(), device),
            text_backbone: lm,
            text: Arc::new(TextSettings {
                tokenizer,
                prompt: self.prompt.clone(),
                max_txt_len: self.max_txt_len,
                num_captions: self.num_captions,
                score_bos: self.score_bos,
            }),
        })
    }
}

fn tower<C, M: Module>(
    config: &TowerConfig<C>,
    device: &Device,
    init: impl Fn(&C, &Device) -> Result<M, Blip2Error>,
    load: impl Fn(&Path, &Device) -> Result<(C, M), Blip2Error>,
) -> Result<Tower<M>, Blip2Error> {
    // Frozen weights never touch the autodiff side, not even while they are loaded.
    let device = if config.frozen {
        device.clone().inner()
    } else {
        device.clone()
    };
    let module = match (&config.weights, &config.architecture) {
        (Some(folder), _) => load(folder, &device)?.1,
        (None, Some(architecture)) => init(architecture, &device)?,
        (None, None) => unreachable!("validate() asks for one of the two"),
    };
    Ok(Tower::new(module, config.frozen))
}

impl Blip2Caption {
    /// The tokenizer of the language model.
    pub fn tokenizer(&self) -> &CaptionTokenizer {
        &self.text.tokenizer
    }

    /// The same model with another prompt.
    pub fn with_prompt(mut self, prompt: &str) -> Self {
        self.text = Arc::new(TextSettings {
            prompt: prompt.to_string(),
            tokenizer: self.text.tokenizer.clone(),
            ..*self.text
        });
        self
    }

    /// What the language model reads of the images.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, height, width]`, normalised
    /// - returns: `[batch, num_query_tokens, language_model_width]`
    pub fn visual_prefix(&self, images: Tensor<4>) -> Tensor<3> {
        // Pixels are constants wherever they come from.
        let image_embeds = self.vision_backbone.get().forward(images.inner());
        self.bridge(image_embeds)
    }

    /// LayerNorm, Q-Former and neck: the trained path from image embeddings to the prefix.
    ///
    /// # Shapes
    /// - `image_embeds`: `[batch, image_tokens, vision_width]`
    /// - returns: `[batch, num_query_tokens, language_model_width]`
    pub fn bridge(&self, image_embeds: Tensor<3>) -> Tensor<3> {
        let query_output = self
            .multimodal_backbone
            .forward(self.ln_vision.forward(image_embeds));
        self.vision_neck.forward(query_output)
    }
}
