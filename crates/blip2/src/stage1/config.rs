//! The configuration of stage 1.

use std::path::PathBuf;

use blip2_data::transforms::ImageProcessorConfig;
use blip2_qformer::QFormerConfig;
use blip2_vision::VisionConfig;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::config::{CONSTANT_ENCODER, TRAINED_PART};
use crate::precision::TowersPrecision;
use crate::{Blip2Error, Compute, InitConfig, TowerConfig};

/// The table `[stage1]` of an experiment's file; see [`Blip2Qformer`](super::Blip2Qformer). Names
/// are those of `Blip2CaptionConfig` and of LAVIS's `Blip2Qformer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blip2QformerConfig {
    /// How a frozen image encoder is kept and multiplies, in the place of its `dtype` and `compute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<TowersPrecision>,
    /// The image encoder.
    pub vision_backbone: TowerConfig<VisionConfig>,
    /// The epsilon of the LayerNorm between image encoder and Q-Former (`ln_vision` in LAVIS).
    pub ln_vision_eps: f64,
    /// The Q-Former with its text side.
    pub multimodal_backbone: QFormerConfig,
    /// The precision in which Q-Former and heads multiply; their weights, gradients and optimizer state are
    /// f32 in any case, as under `torch.autocast`.
    #[serde(default, skip_serializing_if = "Compute::is_f32")]
    pub multimodal_compute: Compute,
    /// Keeps no graph of the image encoder while it learns: each block is run a second time for its
    /// gradients.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recompute_vision_backbone: bool,
    /// A BERT of the Q-Former's dimensions (a folder or file of weights as transformers has
    /// `bert-base-uncased`) from which it starts, queries' feed-forward included; the queries and the
    /// cross-attention are new. Without it all is random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bert: Option<PathBuf>,
    /// A folder with BERT's `tokenizer.json` or `vocab.txt`.
    pub tokenizer: PathBuf,
    /// Channels in which images and texts are compared; 256 in the paper.
    pub embed_dim: usize,
    /// Text tokens a caption is cut to, `[CLS]` and `[SEP]` included.
    pub max_txt_len: usize,
    /// The temperature of the contrast before the first step; it is learned.
    pub temperature: f64,
    /// Of the contrast and of the generated words; 0.1 in LAVIS.
    pub label_smoothing: f64,
    /// What another caption of the same image in a batch is.
    pub same_image: SameImage,
    /// How images become tensors.
    pub data_preprocessor: ImageProcessorConfig,
    /// Starts from a checkpoint of stage 1 instead of random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_cfg: Option<InitConfig>,
}

/// What pairs of one image and another's caption are, where both are of the same image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SameImage {
    /// Wrong like any other: LAVIS's pre-training.
    Negative,
    /// Right as well, and no hard negatives: LAVIS's fine-tuning for retrieval.
    Positive,
}

impl Blip2QformerConfig {
    /// Checks what no part can check alone; the parts check themselves when they are made.
    ///
    /// # Errors
    ///
    /// Names the field.
    pub fn validate(&self) -> Result<(), Blip2Error> {
        let invalid = |field: &str, reason: &str| {
            Err(Blip2Error::Config {
                field: format!("stage1.{field}"),
                reason: reason.to_string(),
            })
        };
        let Some(text) = &self.multimodal_backbone.text else {
            return invalid(
                "multimodal_backbone.text",
                "is missing: stage 1 reads text with the Q-Former",
            );
        };
        if self.max_txt_len < 3 {
            return invalid("max_txt_len", "must be at least 3: [CLS], a word, [SEP]");
        }
        if self.max_txt_len > text.max_position_embeddings {
            let reason = "is more than `multimodal_backbone.text.max_position_embeddings`";
            return invalid("max_txt_len", reason);
        }
        if self.multimodal_compute == Compute::INT8 {
            return invalid("multimodal_compute", TRAINED_PART);
        }
        if self.recompute_vision_backbone && self.vision_backbone.frozen {
            return invalid("recompute_vision_backbone", CONSTANT_ENCODER);
        }
        if self.embed_dim == 0 {
            return invalid("embed_dim", "must be at least 1");
        }
        for (field, value) in [
            ("ln_vision_eps", self.ln_vision_eps),
            ("temperature", self.temperature),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return invalid(field, "must be a positive number");
            }
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return invalid("label_smoothing", "must be at least 0 and below 1");
        }
        if self.precision.is_some() {
            TowersPrecision::check(&self.vision_backbone, "stage1.vision_backbone")?;
        }
        self.vision_backbone.validate("stage1.vision_backbone")
    }

    /// The same config with `precision` said by `dtype` and `compute` of the image encoder, as `device` has
    /// it.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn resolved(&self, device: &Device) -> Result<Self, Blip2Error> {
        self.validate()?;
        let mut resolved = self.clone();
        let precision = resolved.precision.take();
        let vision = &mut resolved.vision_backbone;
        TowersPrecision::resolve(precision, vision, device, "stage1.vision_backbone")?;
        Ok(resolved)
    }
}
