//! The published captioners, complete: dimensions, preprocessing, prompt, generation.

use blip2_data::transforms::{ImageProcessorConfig, Resample};
use blip2_lm::opt::presets::{opt_2_7b, opt_6_7b};
use blip2_lm::{GenerationConfig, OptConfig};
use blip2_qformer::QFormerConfig;
use blip2_vision::VisionConfig;
use blip2_vision::presets::{clip_vit_l_14, eva_vit_g_14};

use crate::checkpoint::Architecture;

/// A published model.
#[derive(Debug, Clone, PartialEq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// The image encoder.
    pub vision: VisionConfig,
    /// The epsilon of the LayerNorm after it.
    pub ln_vision_eps: f64,
    /// The Q-Former.
    pub qformer: QFormerConfig,
    /// The language model; stage 1 has none.
    pub text: Option<OptConfig>,
    /// How images become tensors.
    pub processor: ImageProcessorConfig,
    /// What stands before every caption.
    pub prompt: &'static str,
    /// How captions are written.
    pub generation: GenerationConfig,
}

/// The names that [`preset`] knows.
pub const NAMES: [&str; 5] = [
    "blip2-opt-2.7b",
    "blip2-opt-6.7b",
    "caption_coco_opt2.7b",
    "pretrain",
    "pretrain_vitL",
];

/// The preset called `name`, if there is one.
pub fn preset(name: &str) -> Option<Preset> {
    Some(match name {
        "blip2-opt-2.7b" => hugging_face(
            "blip2-opt-2.7b",
            "Salesforce/blip2-opt-2.7b (LAVIS: blip2_opt, pretrain_opt2.7b)",
            opt_2_7b(),
        ),
        "blip2-opt-6.7b" => hugging_face(
            "blip2-opt-6.7b",
            "Salesforce/blip2-opt-6.7b (LAVIS: blip2_opt, pretrain_opt6.7b)",
            opt_6_7b(),
        ),
        "caption_coco_opt2.7b" => Preset {
            name: "caption_coco_opt2.7b",
            source: "LAVIS: blip2_opt, caption_coco_opt2.7b; decoding of its COCO caption task",
            prompt: "a photo of",
            // `caption_coco_opt2.7b_eval.yaml`, and the defaults of LAVIS's caption task.
            generation: GenerationConfig {
                num_beams: 5,
                max_new_tokens: 30,
                min_new_tokens: 8,
                repetition_penalty: 1.15,
                length_penalty: 0.0,
                ..GenerationConfig::default()
            },
            ..lavis(eva_vit_g_14(364), Some(opt_2_7b()))
        },
        "pretrain" => Preset {
            name: "pretrain",
            source: "LAVIS: blip2, pretrain (stage 1)",
            ..lavis(eva_vit_g_14(224), None)
        },
        "pretrain_vitL" => Preset {
            name: "pretrain_vitL",
            source: "LAVIS: blip2, pretrain_vitL (stage 1)",
            ..lavis(clip_vit_l_14(224), None)
        },
        _ => return None,
    })
}

impl Preset {
    /// The dimensions of a whole captioner; none for stage 1.
    pub fn architecture(&self) -> Option<Architecture> {
        Some(Architecture {
            vision: self.vision.clone(),
            ln_vision_eps: self.ln_vision_eps,
            qformer: self.qformer.clone(),
            text: self.text.clone()?,
        })
    }
}

/// As transformers' conversion has it: one epsilon for the whole encoder.
fn hugging_face(name: &'static str, source: &'static str, text: OptConfig) -> Preset {
    let vision = eva_vit_g_14(224);
    Preset {
        name,
        source,
        ln_vision_eps: vision.layer_norm_eps,
        ..lavis(vision, Some(text))
    }
}

fn lavis(vision: VisionConfig, text: Option<OptConfig>) -> Preset {
    Preset {
        name: "",
        source: "",
        ln_vision_eps: 1e-5,
        qformer: QFormerConfig::bert_base(vision.hidden_size),
        processor: clip_processor(vision.image_size),
        vision,
        text,
        prompt: "",
        generation: GenerationConfig::default(),
    }
}

/// Bicubic resize to a square and CLIP's mean and deviation, as every BLIP-2 has it.
pub fn clip_processor(image_size: usize) -> ImageProcessorConfig {
    ImageProcessorConfig {
        size: [image_size, image_size],
        resample: Resample::Bicubic,
        image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Blip2ForConditionalGeneration(config).num_parameters()` of transformers 5.23; see
    /// tests/reference/sizes.py.
    #[test]
    fn parameter_counts_are_those_of_transformers() {
        for (name, expected) in [
            ("blip2-opt-2.7b", 3_744_679_936),
            ("blip2-opt-6.7b", 7_752_738_304),
            ("caption_coco_opt2.7b", 3_745_271_296),
        ] {
            let architecture = preset(name).unwrap().architecture().unwrap();
            assert_eq!(architecture.num_params(), expected, "{name}");
            let tensors = architecture.expected().unwrap();
            let counted: usize = tensors
                .values()
                .map(|tensor| tensor.shape.iter().product::<usize>())
                .sum();
            assert_eq!(counted, expected, "{name}");
        }
    }

    #[test]
    fn every_name_is_a_preset() {
        for name in NAMES {
            let preset = preset(name).unwrap();
            assert_eq!(preset.name, name);
            assert_eq!(preset.vision.validate(), Ok(()));
            assert_eq!(preset.text.is_some(), name.contains("opt"));
        }
        assert_eq!(preset("blip2-opt-13b"), None);
    }
}
