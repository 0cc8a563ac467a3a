//! The configuration of a captioner, in the words that LAVIS and mmpretrain users know.

use std::path::PathBuf;

use blip2_data::transforms::ImageProcessorConfig;
use blip2_kernels::Products;
use blip2_lm::OptConfig;
use blip2_qformer::QFormerConfig;
use blip2_vision::VisionConfig;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::Blip2Error;
use crate::checkpoint::Precision;
use crate::lora::LoraParts;
use crate::precision::TowersPrecision;

/// A frozen or trained tower: given by a folder of weights, or by its architecture alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "C: Deserialize<'de>"))]
pub struct TowerConfig<C> {
    /// Keeps the weights constant.
    pub frozen: bool,
    /// A folder with `config.json` and weights in the Hugging Face layout (the tower alone, or a
    /// whole BLIP-2), or a file of weights of any layout that `blip2::checkpoint` knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// The precision in which a frozen tower's matrices are kept; it computes in that of its input.
    /// Trained towers keep 32 bits.
    #[serde(default, skip_serializing_if = "is_full")]
    pub dtype: Precision,
    /// The precision in which it multiplies.
    #[serde(default, skip_serializing_if = "Compute::is_f32")]
    pub compute: Compute,
    /// The architecture of a tower that starts from random weights, or whose file of weights does
    /// not say it. Its `image_size` may be another than the weights': positions are interpolated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<C>,
}

/// The precision of products in a part of a model; sums and everything else are f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// f32.
    #[default]
    F32,
    /// Both sides of a product are rounded to bfloat16: about twice as fast on processors with AVX-512
    /// BF16, and the same as f32 on others.
    BF16,
    /// In linear layers, both sides are rounded to eight bits with a scale for each token and each output, on
    /// processors with AVX-512 VNNI; all else as in bfloat16. For towers that are constants.
    INT8,
}

/// Why the trained part does not multiply in int8.
pub(crate) const TRAINED_PART: &str = "a trained part multiplies in f32 or bf16";

impl Compute {
    pub(crate) fn is_f32(&self) -> bool {
        *self == Self::F32
    }

    pub(crate) fn products(self) -> Products {
        match self {
            Self::F32 => Products::F32,
            Self::BF16 => Products::BF16,
            Self::INT8 => Products::INT8,
        }
    }
}

/// The precisions in which the parts multiply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TowerCompute {
    /// The image encoder's.
    pub vision_backbone: Compute,
    /// That of Q-Former and neck.
    pub multimodal_backbone: Compute,
    /// The language model's.
    pub text_backbone: Compute,
}

/// The parts that keep no graph while they learn or pass gradients on: their blocks are run a second time for
/// the backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recompute {
    /// The image encoder.
    pub vision_backbone: bool,
    /// The language model.
    pub text_backbone: bool,
}

/// Why nothing is recomputed of an image encoder that is a constant.
pub(crate) const CONSTANT_ENCODER: &str = "needs an image encoder that learns: set `vision_backbone.frozen = false` (a frozen one keeps no \
     graph), or leave it out";

fn is_full(precision: &Precision) -> bool {
    *precision == Precision::F32
}

/// Where the trained parts (query tokens, Q-Former, LayerNorm, neck) start from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitConfig {
    /// A run folder or one of its `checkpoints/step-N`, or a checkpoint of any layout that
    /// `blip2::checkpoint` knows.
    pub checkpoint: PathBuf,
}

/// The captioner; see `Blip2Caption`. One complete table of an experiment's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blip2CaptionConfig {
    /// How frozen towers are kept and multiply, in the place of their `dtype` and `compute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<TowersPrecision>,
    /// The image encoder.
    pub vision_backbone: TowerConfig<VisionConfig>,
    /// The epsilon of the LayerNorm between image encoder and Q-Former (`ln_vision` in LAVIS).
    pub ln_vision_eps: f64,
    /// The Q-Former.
    pub multimodal_backbone: QFormerConfig,
    /// The precision in which Q-Former and neck multiply; their weights, gradients and optimizer state are
    /// f32 in any case, as under `torch.autocast`.
    #[serde(default, skip_serializing_if = "Compute::is_f32")]
    pub multimodal_compute: Compute,
    /// The projection from the Q-Former to the language model.
    pub vision_neck: VisionNeckKind,
    /// The language model.
    pub text_backbone: TowerConfig<OptConfig>,
    /// A folder with `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// Stands before every caption; exactly one space joins it to the caption. May be empty.
    pub prompt: String,
    /// Text tokens a caption is cut to in training, BOS and prompt included.
    pub max_txt_len: usize,
    /// Captions that `predict` returns an image.
    pub num_captions: usize,
    /// With an empty prompt LAVIS also scores BOS (predicted by the last query); transformers
    /// does not.
    pub score_bos: bool,
    /// Keeps no graph of the image encoder while it learns, or adapters on it do: each block is run a
    /// second time for its gradients. The image encoder then takes a third more time, and its graph
    /// the memory of one block.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recompute_vision_backbone: bool,
    /// Keeps no graph of the language model in training: each layer is run a second time for its
    /// gradients. The language model then takes up to half as much time again, and its graph the
    /// memory of one layer.
    #[serde(default)]
    pub recompute_text_backbone: bool,
    /// LoRA adapters on parts that are constants otherwise.
    #[serde(default, skip_serializing_if = "LoraParts::is_empty")]
    pub lora: LoraParts,
    /// How images become tensors.
    pub data_preprocessor: ImageProcessorConfig,
    /// Starts the trained parts from a checkpoint instead of random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_cfg: Option<InitConfig>,
}

/// The kinds of vision neck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisionNeckKind {
    /// One linear layer (`language_projection`, `opt_proj`).
    Linear,
}

fn invalid(field: &str, reason: &str) -> Result<(), Blip2Error> {
    Err(Blip2Error::Config {
        field: format!("model.{field}"),
        reason: reason.to_string(),
    })
}

impl<C> TowerConfig<C> {
    /// `field` is the table's whole name.
    pub(crate) fn validate(&self, field: &str) -> Result<(), Blip2Error> {
        let invalid = |field: String, reason: &str| {
            let reason = reason.to_string();
            Err(Blip2Error::Config { field, reason })
        };
        if self.weights.is_none() && self.architecture.is_none() {
            let reason = "needs `weights`, `architecture` or both";
            return invalid(field.into(), reason);
        }
        if !self.frozen && self.dtype != Precision::F32 {
            let reason = "a trained tower keeps its weights in f32; leave it out";
            return invalid(format!("{field}.dtype"), reason);
        }
        if !self.frozen && self.compute == Compute::INT8 {
            return invalid(format!("{field}.compute"), TRAINED_PART);
        }
        Ok(())
    }
}

impl Blip2CaptionConfig {
    /// Checks what no part can check alone; the parts check themselves when they are made.
    ///
    /// # Errors
    ///
    /// Names the field.
    pub fn validate(&self) -> Result<(), Blip2Error> {
        if self.max_txt_len < 2 {
            return invalid("max_txt_len", "must be at least 2 (BOS and one token)");
        }
        if self.num_captions == 0 {
            return invalid("num_captions", "must be at least 1");
        }
        if !(self.ln_vision_eps > 0.0 && self.ln_vision_eps.is_finite()) {
            return invalid("ln_vision_eps", "must be a positive number");
        }
        if self.multimodal_backbone.text.is_some() {
            let reason = "captioning has no text side in the Q-Former: leave it out";
            return invalid("multimodal_backbone.text", reason);
        }
        if self.multimodal_compute == Compute::INT8 {
            return invalid("multimodal_compute", TRAINED_PART);
        }
        let constant = self.vision_backbone.frozen && self.lora.vision_backbone.is_none();
        if self.recompute_vision_backbone && constant {
            return invalid("recompute_vision_backbone", CONSTANT_ENCODER);
        }
        self.lora.validate()?;
        let towers = [
            (
                "vision_backbone",
                &self.lora.vision_backbone,
                self.vision_backbone.frozen,
                self.vision_backbone.dtype,
            ),
            (
                "text_backbone",
                &self.lora.text_backbone,
                self.text_backbone.frozen,
                self.text_backbone.dtype,
            ),
        ];
        for (name, lora, _, dtype) in towers {
            let quantized = lora.as_ref().is_some_and(|lora| lora.quantize.is_some());
            if quantized && matches!(dtype, Precision::Int8 | Precision::Int4) {
                let reason = format!("`model.{name}.dtype` says it already: leave one of them out");
                return invalid(&format!("lora.{name}.quantize"), &reason);
            }
        }
        for (name, lora, frozen, _) in towers {
            if lora.is_some() && !frozen {
                let reason = format!("adapters need a frozen part: set `model.{name}.frozen`");
                return invalid(&format!("lora.{name}"), &reason);
            }
        }
        if self.precision.is_some() {
            TowersPrecision::check(&self.vision_backbone, "model.vision_backbone")?;
            TowersPrecision::check(&self.text_backbone, "model.text_backbone")?;
        }
        self.vision_backbone.validate("model.vision_backbone")?;
        self.text_backbone.validate("model.text_backbone")
    }

    /// The same config with `precision` said by `dtype` and `compute` of each frozen tower, as `device` has
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
        TowersPrecision::resolve(precision, vision, device, "model.vision_backbone")?;
        let text = &mut resolved.text_backbone;
        TowersPrecision::resolve(precision, text, device, "model.text_backbone")?;
        Ok(resolved)
    }
}
