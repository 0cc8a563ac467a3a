//! `blip2 convert --adapter`.

use std::path::{Path, PathBuf};

use blip2::lora::Adapter;
use blip2::{Blip2Caption, Blip2CaptionConfig, Tower};
use burn::tensor::Device;

use super::model::load_run;
use super::result_line;
use crate::RunError;
use crate::run::RunFolder;

/// Writes the LoRA adapters of the run in `from` to `to`, and says what they do not hold. `base` is what
/// the folder calls the model that they are for.
pub(super) fn write(
    from: &Path,
    to: &Path,
    base: Option<&PathBuf>,
    device: &Device,
) -> Result<(), RunError> {
    let none = || {
        RunError::Usage(format!(
            "--adapter: {} is no run with LoRA adapters",
            from.display()
        ))
    };
    if !RunFolder::is_at(from) {
        return Err(none());
    }
    let run = load_run(from, device)?;
    let adapter = Adapter::of(&run.model, from).ok_or_else(none)?;
    let base = match base {
        Some(base) => base.display().to_string(),
        None => base_of(&run.config),
    };
    let files = adapter.write(to, &base, &run.model.linear_layers())?;
    let others = trained_whole(&run.model);
    if !others.is_empty() {
        eprintln!(
            "note: the run also trained {}, which an adapter does not hold: on the model that it \
             began with, these adapters give other captions. --merge-lora writes everything; a run \
             with `model.lora.adapters_only` trains nothing else",
            others.join(", ")
        );
    }
    eprintln!("every tensor was read back and is the same");
    for file in files {
        result_line(&file.display().to_string())?;
    }
    Ok(())
}

/// The parts that learned without adapters.
fn trained_whole(model: &Blip2Caption) -> Vec<&'static str> {
    fn trained<M>(tower: &Tower<M>) -> bool {
        matches!(tower, Tower::Trained(_))
    }
    [
        ("vision_backbone", trained(&model.vision_backbone)),
        ("ln_vision", trained(&model.ln_vision)),
        ("multimodal_backbone", trained(&model.multimodal_backbone)),
        ("vision_neck", trained(&model.vision_neck)),
        ("text_backbone", trained(&model.text_backbone)),
    ]
    .into_iter()
    .filter_map(|(name, trained)| trained.then_some(name))
    .collect()
}

/// The model that a recipe begins with, as transformers would load it.
fn base_of(config: &Blip2CaptionConfig) -> String {
    let init = config.init_cfg.as_ref().map(|init| &init.checkpoint);
    let weights = [
        &config.text_backbone.weights,
        &config.vision_backbone.weights,
    ];
    let mut paths = init.into_iter().chain(weights.into_iter().flatten());
    paths.next().map_or_else(String::new, |path| name_of(path))
}

/// A path; or `owner/name` of what lies in the cache of the hub.
fn name_of(path: &Path) -> String {
    let hub = path.components().find_map(|component| {
        let name = component.as_os_str().to_str()?.strip_prefix("models--")?;
        Some(name.replacen("--", "/", 1))
    });
    hub.unwrap_or_else(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_the_hub_are_called_by_their_ids() {
        let cached = "/cache/hub/models--Salesforce--blip2-opt-2.7b/snapshots/abc";
        assert_eq!(name_of(Path::new(cached)), "Salesforce/blip2-opt-2.7b");
        assert_eq!(name_of(Path::new("/models/mine")), "/models/mine");
    }
}
