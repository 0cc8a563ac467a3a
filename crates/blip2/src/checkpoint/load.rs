//! From a checkpoint that was looked through to a captioner.

use blip2_data::tokenizer::CaptionTokenizer;
use burn::tensor::Device;

use super::architecture::{Architecture, Bridge};
use super::fill::{Meter, Precision, Progress, fill};
use super::import::{Checkpoint, Imported};
use super::names::{Layout, Part, STAGE_ONE_HEADS};
use super::weights::Weights;
use crate::model::{Parts, TextSettings};
use crate::{Blip2Caption, Blip2Error, Tower};

/// LAVIS's default length of texts in training.
const LAVIS_MAX_TXT_LEN: usize = 32;

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
        let frozen = &device.clone().inner();
        let Architecture { vision, text, .. } = &self.architecture;
        let (vision, text) = (vision.init(frozen)?, text.init(frozen)?);
        let bridge = self.architecture.init_bridge(device)?;
        let meter = progress.map(|tell| Meter::new(self.bytes(precision), tell));
        let (weights, meter) = (&self.weights, meter.as_ref());
        let (image, language) = (Part::VisionBackbone, Part::TextBackbone);
        let vision = fill(vision, image, weights, precision, meter, frozen)?;
        let bridge = fill_bridge(bridge, weights, meter, device)?;
        let text = fill(text, language, weights, precision, meter, frozen)?;
        let parts = Parts {
            vision: Tower::new(vision, true),
            bridge,
            text: Tower::new(text, true),
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

/// Gives `model` the trained parts (queries, Q-Former, LayerNorm, neck) of a checkpoint of any layout;
/// its towers are passed over. A checkpoint of stage 1 has no neck: the model then keeps its own, and
/// true is returned besides. The model must have no adapters yet.
///
/// # Errors
///
/// As [`Checkpoint::load`]. The model is lost then.
pub fn load_trained_parts(
    model: Blip2Caption,
    weights: &Weights,
    device: &Device,
) -> Result<(Blip2Caption, bool), Blip2Error> {
    let bridge = Bridge {
        ln_vision: model.ln_vision.into_module(),
        qformer: model.multimodal_backbone.into_module(),
        neck: model.vision_neck.into_module(),
    };
    let has_neck = weights
        .tensors
        .keys()
        .any(|address| address.part == Part::VisionNeck);
    let heads = |(_, reason): &(String, &str)| *reason == STAGE_ONE_HEADS;
    let stage_one = !has_neck && weights.dropped.iter().any(heads);
    let bridge = match stage_one {
        true => fill_before_neck(bridge, weights, None, device)?,
        false => fill_bridge(bridge, weights, None, device)?,
    };
    let model = Blip2Caption {
        ln_vision: Tower::Trained(bridge.ln_vision),
        multimodal_backbone: Tower::Trained(bridge.qformer),
        vision_neck: Tower::Trained(bridge.neck),
        ..model
    };
    Ok((model, stage_one))
}

/// Gives the trained parts their weights, in f32 whatever the file has.
fn fill_bridge(
    bridge: Bridge,
    weights: &Weights,
    meter: Option<&Meter>,
    device: &Device,
) -> Result<Bridge, Blip2Error> {
    let bridge = fill_before_neck(bridge, weights, meter, device)?;
    let (part, all) = (Part::VisionNeck, Precision::F32);
    Ok(Bridge {
        neck: fill(bridge.neck, part, weights, all, meter, device)?,
        ..bridge
    })
}

fn fill_before_neck(
    bridge: Bridge,
    weights: &Weights,
    meter: Option<&Meter>,
    device: &Device,
) -> Result<Bridge, Blip2Error> {
    let (norm, qformer, all) = (Part::LnVision, Part::MultimodalBackbone, Precision::F32);
    Ok(Bridge {
        ln_vision: fill(bridge.ln_vision, norm, weights, all, meter, device)?,
        qformer: fill(bridge.qformer, qformer, weights, all, meter, device)?,
        ..bridge
    })
}
