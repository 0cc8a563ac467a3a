//! From a plan to a captioner with adapters.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use blip2_kernels::LinearsTo;
use burn::module::{Lora, Module, ParamGroup};
use burn::tensor::{Device, FloatDType};

use super::adapter::Adapter;
use super::config::{LoraConfig, LoraParts, Quantization, field};
use super::factors::{DrawA, Values};
use super::fingerprint::of_model;
use super::layers::{AdaptedLayer, LinearLayer, compacted, linear_layers};
use crate::checkpoint::names::Part;
use crate::{Blip2Caption, Blip2Error, Tower};

/// The adapters of one part.
struct Plan {
    layers: Vec<AdaptedLayer>,
    quantize: Option<Quantization>,
}

impl Blip2Caption {
    /// The linear layers of image encoder, Q-Former and language model.
    pub fn linear_layers(&self) -> Vec<LinearLayer> {
        let mut layers = linear_layers(Part::VisionBackbone, self.vision_backbone.get());
        let qformer = self.multimodal_backbone.get();
        layers.extend(linear_layers(Part::MultimodalBackbone, qformer));
        layers.extend(linear_layers(Part::TextBackbone, self.text_backbone.get()));
        layers
    }

    /// The layers that have adapters.
    pub fn adapted_layers(&self) -> &[AdaptedLayer] {
        &self.lora
    }

    /// Gives the layers that `config` names adapters, which are trained on `device`: `a` uniform as
    /// PEFT draws it, `b` zero. What they start from otherwise is left to
    /// [`with_adapters_from`](Self::with_adapters_from).
    ///
    /// # Errors
    ///
    /// Names that match no layer: the message lists the layers that there are.
    pub fn with_lora(self, config: &LoraParts, device: &Device) -> Result<Self, Blip2Error> {
        config.validate()?;
        for (part, quantization) in config
            .iter()
            .filter_map(|(part, config)| Some((part, config.quantize?)))
        {
            if !quantization.bits().available(device) {
                return Err(Blip2Error::Config {
                    field: field(part, "quantize"),
                    reason: "four bits are for the CPU (flex): choose int8".into(),
                });
            }
        }
        let plans = config
            .iter()
            .map(|(part, config)| Ok((part, self.plan(part, config)?)))
            .collect::<Result<BTreeMap<_, _>, Blip2Error>>()?;
        let mut model = self.adapted(plans, device);
        if config.adapters_only {
            model.ln_vision = model.ln_vision.into_frozen();
            model.vision_neck = model.vision_neck.into_frozen();
            if !model.multimodal_backbone.is_adapted() {
                model.multimodal_backbone = model.multimodal_backbone.into_frozen();
            }
        }
        Ok(model)
    }

    /// The same model, whose adapters have the values that the folders `init` of `config` hold.
    ///
    /// # Errors
    ///
    /// A folder that can't be read, or whose adapters are of other layers, another rank or another
    /// scale than those of the config.
    pub fn with_adapters_from(self, config: &LoraParts) -> Result<Self, Blip2Error> {
        let mut model = self;
        for (part, config) in config.iter() {
            let Some(folder) = &config.init else { continue };
            let adapter = Adapter::read(folder)?.only(part);
            model.check_same(part, &adapter)?;
            model = model.with_values(&adapter);
        }
        Ok(model)
    }

    /// Puts the adapters of a folder on a model that has none, for captions on `device` or to go on
    /// training. Their layers' parts are constants from then on.
    ///
    /// # Errors
    ///
    /// If the model has adapters, or those of the folder belong to another one.
    pub fn with_adapter(self, adapter: &Adapter, device: &Device) -> Result<Self, Blip2Error> {
        if !self.lora.is_empty() {
            return Err(Blip2Error::Format {
                path: adapter.path.clone(),
                reason: "the model has adapters already: merge them first (convert --merge-lora)"
                    .into(),
            });
        }
        let layers = adapter.check(&self.linear_layers())?;
        self.check_base(adapter, &layers)?;
        let mut plans: BTreeMap<Part, Plan> = BTreeMap::new();
        for layer in layers {
            let plan = plans.entry(layer.layer.weight.part).or_insert(Plan {
                layers: Vec::new(),
                quantize: None,
            });
            plan.layers.push(layer);
        }
        Ok(self.adapted(plans, device).with_values(adapter))
    }

    /// What got adapters, in words: a line for each part.
    pub fn lora_summary(&self) -> Vec<String> {
        let all = self.linear_layers();
        Part::ALL
            .into_iter()
            .filter_map(|part| {
                let of_part = |layer: &&AdaptedLayer| layer.layer.weight.part == part;
                let layers: Vec<&AdaptedLayer> = self.lora.iter().filter(of_part).collect();
                let first = layers.first()?;
                let params: usize = layers.iter().map(|layer| layer.num_params()).sum();
                let count = all.iter().filter(|layer| layer.weight.part == part).count();
                Some(format!(
                    "LoRA on {} of {count} linear layers of {}, {params} parameters, r {}, scale {}: \
                     {}",
                    layers.len(),
                    part.name(),
                    first.rank,
                    first.scale(),
                    compacted(layers.iter().map(|layer| layer.layer.name.as_str())),
                ))
            })
            .collect()
    }

    fn plan(&self, part: Part, config: &LoraConfig) -> Result<Plan, Blip2Error> {
        let all = self.linear_layers();
        let all: Vec<LinearLayer> = all
            .into_iter()
            .filter(|layer| layer.weight.part == part)
            .collect();
        let invalid = |reason: String| Blip2Error::Config {
            field: field(part, "target_modules"),
            reason,
        };
        let matches = config.target_modules.matcher().map_err(invalid)?;
        let layers: Vec<AdaptedLayer> = all
            .iter()
            .filter(|layer| matches(&layer.name))
            .map(|layer| AdaptedLayer {
                layer: layer.clone(),
                rank: config.r,
                alpha: config.lora_alpha,
                rslora: config.use_rslora,
            })
            .collect();
        if layers.is_empty() {
            return Err(invalid(format!(
                "matches no linear layer of the part; there are {}",
                compacted(all.iter().map(|layer| layer.name.as_str()))
            )));
        }
        Ok(Plan {
            layers,
            quantize: config.quantize,
        })
    }

    fn adapted(mut self, mut plans: BTreeMap<Part, Plan>, device: &Device) -> Self {
        let mut lora = Vec::new();
        // In the order of the data, for adapters are drawn from one source of random numbers.
        for part in Part::ALL {
            let Some(plan) = plans.remove(&part) else {
                continue;
            };
            match part {
                Part::VisionBackbone => {
                    self.vision_backbone = attach(self.vision_backbone, &plan, device);
                }
                Part::MultimodalBackbone => {
                    let qformer = self.multimodal_backbone;
                    self.multimodal_backbone = attach(qformer, &plan, device);
                }
                Part::TextBackbone => {
                    self.text_backbone = attach(self.text_backbone, &plan, device);
                }
                Part::LnVision | Part::VisionNeck | Part::Heads => continue,
            }
            lora.extend(plan.layers);
        }
        self.lora = Arc::new(lora);
        self
    }

    /// Fails if `adapter` was trained on other weights than the model's, as far as it says.
    fn check_base(&self, adapter: &Adapter, layers: &[AdaptedLayer]) -> Result<(), Blip2Error> {
        if adapter.fingerprints.is_empty() {
            return Ok(());
        }
        let layers = layers.iter().map(|adapted| &adapted.layer);
        adapter.check_base(&of_model(self, layers))
    }

    /// Fails unless `adapter` has the layers, ranks and scales that `part` has.
    fn check_same(&self, part: Part, adapter: &Adapter) -> Result<(), Blip2Error> {
        let theirs = adapter.check(&self.linear_layers())?;
        self.check_base(adapter, &theirs)?;
        let ours: Vec<&AdaptedLayer> = self
            .lora
            .iter()
            .filter(|layer| layer.layer.weight.part == part)
            .collect();
        let invalid = |name: &str, reason: String| {
            Err(Blip2Error::Config {
                field: field(part, name),
                reason: format!("{}: {reason}", adapter.path.display()),
            })
        };
        let name = |layer: &AdaptedLayer| layer.layer.name.clone();
        for our in &ours {
            let Some(their) = theirs.iter().find(|their| their.layer == our.layer) else {
                let reason = format!("has no adapter for `{}`", name(our));
                return invalid("target_modules", reason);
            };
            if their.rank != our.rank {
                let reason = format!("`{}` has rank {}, not {}", name(our), their.rank, our.rank);
                return invalid("r", reason);
            }
            if (their.scale() / our.scale() - 1.0).abs() > 1e-6 {
                let (theirs, ours) = (their.scale(), our.scale());
                let reason = format!("`{}` has the scale {theirs}, not {ours}", name(our));
                return invalid("lora_alpha", reason);
            }
        }
        let other = |their: &&AdaptedLayer| !ours.iter().any(|our| our.layer == their.layer);
        match theirs.iter().find(other) {
            Some(other) => invalid(
                "target_modules",
                format!(
                    "has an adapter for `{}`, which is not named here",
                    name(other)
                ),
            ),
            None => Ok(()),
        }
    }

    /// The adapters that the model has, with the values of `adapter`, which was found to fit.
    fn with_values(mut self, adapter: &Adapter) -> Self {
        let values = |part| Values::of(adapter, part);
        self.vision_backbone = self.vision_backbone.map(&mut values(Part::VisionBackbone));
        self.multimodal_backbone = self
            .multimodal_backbone
            .map(&mut values(Part::MultimodalBackbone));
        self.text_backbone = self.text_backbone.map(&mut values(Part::TextBackbone));
        self
    }
}

/// Freezes a part and gives layers of it adapters, through Burn's `apply_lora`.
fn attach<M: Module>(tower: Tower<M>, plan: &Plan, device: &Device) -> Tower<M> {
    let mut module = tower.into_frozen().into_module();
    if let Some(quantization) = plan.quantize {
        module = module.map(&mut LinearsTo::new(quantization.bits()));
    }
    // One call for each rank and scale; what is named in no call keeps what it has.
    let mut groups: BTreeMap<(usize, u64), Vec<String>> = BTreeMap::new();
    for layer in &plan.layers {
        let group = (layer.rank, layer.scale().to_bits());
        let path = layer.layer.weight.path.clone();
        groups.entry(group).or_default().push(path);
    }
    for ((rank, scale), paths) in groups {
        let lora = Lora::new(rank, f64::from_bits(scale) * rank as f64)
            .set_dtype(FloatDType::F32)
            .set_param_group(ParamGroup::from_paths(paths));
        module = module.apply_lora(lora);
    }
    module = module.map(&mut DrawA::default());
    Tower::adapted(module, device)
}

/// The folder of an adapter, for messages.
pub(super) fn folder_error(path: &Path, reason: String) -> Blip2Error {
    Blip2Error::Format {
        path: path.to_path_buf(),
        reason,
    }
}
