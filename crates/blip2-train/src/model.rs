//! From the table `[model]` of a recipe to the captioner that a run begins with.

use blip2::checkpoint::{Weights, load_trained_parts};
use blip2::{Blip2Caption, Blip2CaptionConfig, InitConfig};
use burn::tensor::Device;

use crate::RunError;
use crate::run::checkpoint;
use crate::tasks::CaptionTask;

/// The captioner before its first step: towers from their files, the parts between from `init_cfg`, and
/// adapters, which start from `lora.*.init`.
///
/// # Errors
///
/// A field that is wrong, files that can't be read or do not fit.
pub fn start(config: &Blip2CaptionConfig, device: &Device) -> Result<Blip2Caption, RunError> {
    let mut model = config.init(device)?;
    if let Some(init) = &config.init_cfg {
        model = with_trained_parts(model, init, device)?;
    }
    let model = model.with_lora(&config.lora, device)?;
    Ok(model.with_adapters_from(&config.lora)?)
}

/// The same captioner without what a checkpoint of the run brings: of `init_cfg` it takes only what the
/// run kept constant.
///
/// # Errors
///
/// As [`start`].
pub fn constants(config: &Blip2CaptionConfig, device: &Device) -> Result<Blip2Caption, RunError> {
    let mut model = config.init(device)?;
    let lora = &config.lora;
    if let Some(init) = &config.init_cfg
        && (lora.adapters_only || lora.multimodal_backbone.is_some())
    {
        model = with_trained_parts(model, init, device)?;
    }
    Ok(model.with_lora(lora, device)?)
}

fn with_trained_parts(
    model: Blip2Caption,
    init: &InitConfig,
    device: &Device,
) -> Result<Blip2Caption, RunError> {
    let path = &init.checkpoint;
    let weights = if checkpoint::is_one(path) {
        let found = checkpoint::find(path)?;
        if found.has_adapters()? {
            return Err(RunError::Checkpoint {
                path: found.path,
                reason:
                    "holds LoRA adapters, not the weights that they belong to: name a folder that \
                         convert --merge-lora wrote, or an adapter's as `model.lora.….init`"
                        .into(),
            });
        }
        if !found.is_stage1()? {
            return Ok(found.load_into(CaptionTask { model })?.model);
        }
        found.weights()?
    } else {
        Weights::open(path)?
    };
    let (model, stage_one) = load_trained_parts(model, &weights, device)?;
    if stage_one {
        eprintln!(
            "{} is of stage 1: Q-Former, queries and LayerNorm start from it, the neck is new",
            path.display()
        );
    }
    Ok(model)
}
