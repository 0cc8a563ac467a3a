//! The dimensions of a captioner, from configs or from the weights themselves.

use std::collections::BTreeMap;

use blip2_kernels::LayerNorm;
use blip2_lm::OptConfig;
use blip2_lm::opt::presets::num_attention_heads;
use blip2_qformer::{QFormer, QFormerConfig, VisionNeck};
use blip2_vision::{Activation, VisionConfig};
use burn::module::Module;
use burn::tensor::Device;

use super::fill::{Expected, expected};
use super::names::{Address, Layout, Part};
use super::weights::Weights;
use crate::Blip2Error;

/// Every dimension of a captioner.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// The image encoder.
    pub vision: VisionConfig,
    /// The epsilon of the LayerNorm after it.
    pub ln_vision_eps: f64,
    /// The Q-Former.
    pub qformer: QFormerConfig,
    /// The language model.
    pub text: OptConfig,
}

/// What is trained between the towers.
#[derive(Debug)]
pub struct Bridge {
    /// The LayerNorm after the image encoder.
    pub ln_vision: LayerNorm,
    /// The Q-Former.
    pub qformer: QFormer,
    /// The projection to the language model.
    pub neck: VisionNeck,
}

impl Architecture {
    /// What is trained between the towers, random. Burn draws a weight only when it is used.
    ///
    /// # Errors
    ///
    /// If a dimension is impossible.
    pub fn init_bridge(&self, device: &Device) -> Result<Bridge, Blip2Error> {
        let (width, lm_width) = (self.qformer.hidden_size, self.text.word_embed_proj_dim);
        Ok(Bridge {
            ln_vision: LayerNorm::new(self.vision.hidden_size, self.ln_vision_eps, device),
            qformer: self.qformer.init(device)?,
            neck: VisionNeck::new(width, lm_width, device),
        })
    }

    /// Every tensor that the captioner has.
    ///
    /// # Errors
    ///
    /// If a dimension is impossible.
    pub fn expected(&self) -> Result<BTreeMap<Address, Expected>, Blip2Error> {
        let device = Device::default();
        let text = self.text.init(&device)?;
        let bridge = self.init_bridge(&device)?;
        let mut all = list(Part::VisionBackbone, &self.vision.init(&device)?);
        all.append(&mut list(Part::LnVision, &bridge.ln_vision));
        all.append(&mut list(Part::MultimodalBackbone, &bridge.qformer));
        all.append(&mut list(Part::VisionNeck, &bridge.neck));
        all.append(&mut list(Part::TextBackbone, &text));
        Ok(all)
    }

    /// Numbers in the weights of one part.
    pub fn part_params(&self, part: Part) -> usize {
        match part {
            Part::VisionBackbone => self.vision.num_params(),
            Part::LnVision => 2 * self.vision.hidden_size,
            Part::MultimodalBackbone => self.qformer.num_params(),
            Part::VisionNeck => (self.qformer.hidden_size + 1) * self.text.word_embed_proj_dim,
            Part::TextBackbone => self.text.num_params(),
            Part::Heads => 0,
        }
    }

    /// Numbers in the weights.
    pub fn num_params(&self) -> usize {
        Part::ALL
            .into_iter()
            .map(|part| self.part_params(part))
            .sum()
    }
}

/// The tensors of one part.
pub fn list<M: Module>(part: Part, module: &M) -> BTreeMap<Address, Expected> {
    expected(module)
        .into_iter()
        .map(|(path, parameter)| (Address { part, path }, parameter))
        .collect()
}

/// LAVIS's LayerNorms are torch's where it sets no epsilon.
const TORCH_EPS: f64 = 1e-5;

/// The image encoder that `weights` holds, if it holds one. Heads and epsilons leave no trace in
/// weights: they are known for the published widths only.
///
/// # Errors
///
/// If the width is of no published encoder.
pub fn infer_vision(weights: &Weights) -> Result<Option<VisionConfig>, Blip2Error> {
    let part = Part::VisionBackbone;
    let (Some(patches), Some(positions), Some(fc1)) = (
        weights.get(part, "patch_embed.projection.weight"),
        weights.get(part, "position_embedding"),
        weights.get(part, "blocks.0.mlp.fc1.weight"),
    ) else {
        return Ok(None);
    };
    let (&[hidden_size, num_channels, patch_size, _], &[intermediate_size, _]) =
        (patches.shape.as_slice(), fc1.shape.as_slice())
    else {
        return Ok(None);
    };
    let num_attention_heads = match hidden_size {
        1408 | 1024 => 16,
        768 => 12,
        384 => 6,
        _ => {
            return Err(unknown(
                weights,
                "vision_backbone.num_attention_heads",
                hidden_size,
            ));
        }
    };
    let tokens = positions.shape[positions.shape.len().saturating_sub(2)];
    let pre_layernorm = weights.get(part, "pre_layernorm.gamma").is_some();
    // EVA's file has all 40 blocks, CLIP's all 24; BLIP-2 leaves the last out.
    let depth = depth(weights, part, "blocks.");
    let published = matches!(weights.layout, Layout::Vision(_))
        && matches!((hidden_size, depth), (1408, 40) | (1024, 24));
    Ok(Some(VisionConfig {
        image_size: tokens.saturating_sub(1).isqrt() * patch_size,
        patch_size,
        num_channels,
        hidden_size,
        num_hidden_layers: depth - usize::from(published),
        num_attention_heads,
        intermediate_size,
        hidden_act: if pre_layernorm {
            Activation::QuickGelu
        } else {
            Activation::Gelu
        },
        layer_norm_eps: if pre_layernorm { TORCH_EPS } else { 1e-6 },
        qkv_bias: weights.get(part, "blocks.0.self_attn.qkv.bias").is_some(),
        patch_bias: weights.get(part, "patch_embed.projection.bias").is_some(),
        pre_layernorm,
        drop_path_rate: 0.0,
    }))
}

/// The Q-Former that `weights` holds, if it holds one.
///
/// # Errors
///
/// If its width is no multiple of BERT's 64 channels a head.
pub fn infer_qformer(weights: &Weights) -> Result<Option<QFormerConfig>, Blip2Error> {
    let part = Part::MultimodalBackbone;
    let (Some(queries), Some(inner), Some(key)) = (
        weights.get(part, "query_tokens"),
        weights.get(part, "layers.0.intermediate_query.weight"),
        weights.get(part, "layers.0.crossattention.key.weight"),
    ) else {
        return Ok(None);
    };
    let (&[_, num_query_tokens, hidden_size], &[intermediate_size, _], &[_, encoder_hidden_size]) = (
        queries.shape.as_slice(),
        inner.shape.as_slice(),
        key.shape.as_slice(),
    ) else {
        return Ok(None);
    };
    if !hidden_size.is_multiple_of(64) {
        let field = "multimodal_backbone.num_attention_heads";
        return Err(unknown(weights, field, hidden_size));
    }
    let num_hidden_layers = depth(weights, part, "layers.");
    let crosses = |layer: &usize| {
        let path = format!("layers.{layer}.crossattention.key.weight");
        weights.get(part, &path).is_some()
    };
    let frequency = (1..num_hidden_layers).find(crosses);
    Ok(Some(QFormerConfig {
        num_query_tokens,
        hidden_size,
        num_hidden_layers,
        num_attention_heads: hidden_size / 64,
        intermediate_size,
        cross_attention_frequency: frequency.unwrap_or(num_hidden_layers),
        ..QFormerConfig::bert_base(encoder_hidden_size)
    }))
}

/// The OPT model that `weights` holds, if it holds one.
///
/// # Errors
///
/// If its width is of no published OPT model.
pub fn infer_opt(weights: &Weights) -> Result<Option<OptConfig>, Blip2Error> {
    let part = Part::TextBackbone;
    let (Some(tokens), Some(positions), Some(fc1)) = (
        weights.get(part, "embed_tokens.weight"),
        weights.get(part, "embed_positions.weight"),
        weights.get(part, "layers.0.fc1.weight"),
    ) else {
        return Ok(None);
    };
    let (&[vocab_size, word_embed_proj_dim], &[rows, hidden_size], &[ffn_dim, _]) = (
        tokens.shape.as_slice(),
        positions.shape.as_slice(),
        fc1.shape.as_slice(),
    ) else {
        return Ok(None);
    };
    let heads = num_attention_heads(hidden_size)
        .ok_or_else(|| unknown(weights, "text_backbone.num_attention_heads", hidden_size))?;
    Ok(Some(OptConfig {
        vocab_size,
        hidden_size,
        num_hidden_layers: depth(weights, part, "layers."),
        num_attention_heads: heads,
        ffn_dim,
        max_position_embeddings: rows.saturating_sub(2),
        word_embed_proj_dim,
        do_layer_norm_before: weights.get(part, "final_layer_norm.gamma").is_some(),
        enable_bias: weights.get(part, "layers.0.fc1.bias").is_some(),
        ..blip2_lm::opt::presets::opt_125m()
    }))
}

/// What LAVIS's and mmpretrain's LayerNorm after the image encoder has.
pub fn ln_vision_eps_of(layout: Layout, vision: &VisionConfig) -> f64 {
    match layout {
        Layout::HuggingFace => vision.layer_norm_eps,
        _ => TORCH_EPS,
    }
}

/// One more than the largest index after `prefix`.
fn depth(weights: &Weights, part: Part, prefix: &str) -> usize {
    let indices = weights.tensors.keys().filter_map(|address| {
        let rest = address.path.strip_prefix(prefix)?;
        (address.part == part).then_some(())?;
        rest.split('.').next()?.parse::<usize>().ok()
    });
    indices.max().map_or(0, |last| last + 1)
}

fn unknown(weights: &Weights, field: &str, width: usize) -> Blip2Error {
    Blip2Error::Config {
        field: field.to_string(),
        reason: format!(
            "{} does not say it, and its width {width} is of no published model: name a folder \
             with the config.json of this architecture as base",
            weights.path.display()
        ),
    }
}
