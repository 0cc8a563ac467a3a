//! Adapters apart from a model: what a folder in PEFT's layout holds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use super::attach::folder_error;
use super::config::{Targets, scale};
use super::factors::{A, B, ends_with};
use super::fingerprint::of_model;
use super::layers::{AdaptedLayer, LinearLayer, compacted};
use crate::checkpoint::names::{Address, Part};
use crate::{Blip2Caption, Blip2Error};

/// The adapters of a captioner.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The folder that they came from, or what they were taken from; for messages.
    pub path: PathBuf,
    /// The model that they were trained on, as the folder names it.
    pub base: Option<String>,
    /// The layers that the folder says it adapts, where all of them are known to be in it.
    pub targets: Option<Targets>,
    /// What tells the weights that they were trained on from others, by the names of the layers; empty if
    /// another program wrote the folder.
    pub fingerprints: BTreeMap<String, Vec<f32>>,
    /// In the order of the data.
    pub layers: Vec<LowRank>,
}

/// The adapter of one layer: `scale · b · a` is added to its weight, all in torch's layout.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// Where the weight is.
    pub weight: Address,
    /// The layer's name in transformers.
    pub name: String,
    /// The rank.
    pub rank: usize,
    /// PEFT's `lora_alpha`.
    pub alpha: f64,
    /// Whether the scale is rsLoRA's.
    pub rslora: bool,
    /// The layer's width.
    pub inputs: usize,
    /// The width of its output.
    pub outputs: usize,
    /// `[rank, inputs]`, row-major.
    pub a: Vec<f32>,
    /// `[outputs, rank]`, row-major.
    pub b: Vec<f32>,
}

impl LowRank {
    /// What `b · a` is multiplied by.
    pub fn scale(&self) -> f64 {
        scale(self.alpha, self.rank, self.rslora)
    }

    /// `[inputs, rank]`
    pub(super) fn a_in_burn(&self) -> TensorData {
        let values = transposed(&self.a, self.inputs);
        TensorData::new(values, [self.inputs, self.rank])
    }

    /// `[rank, outputs]`
    pub(super) fn b_in_burn(&self) -> TensorData {
        let values = transposed(&self.b, self.rank);
        TensorData::new(values, [self.rank, self.outputs])
    }
}

impl Adapter {
    /// The adapters of `model`, if it has any. `path` stands in messages.
    pub fn of(model: &Blip2Caption, path: impl Into<PathBuf>) -> Option<Self> {
        let mut found = Found::default();
        for part in Part::ALL {
            found.part = Some(part);
            match part {
                Part::VisionBackbone if model.vision_backbone.is_adapted() => {
                    model.vision_backbone.visit(&mut found);
                }
                Part::MultimodalBackbone if model.multimodal_backbone.is_adapted() => {
                    model.multimodal_backbone.visit(&mut found);
                }
                Part::TextBackbone if model.text_backbone.is_adapted() => {
                    model.text_backbone.visit(&mut found);
                }
                _ => {}
            }
        }
        let mut layers = Vec::new();
        for adapted in model.adapted_layers() {
            let AdaptedLayer { layer, rank, .. } = adapted;
            // Burn's factors are the other way round.
            let a = transposed(found.a.get(&layer.weight)?, *rank);
            let b = transposed(found.b.get(&layer.weight)?, layer.outputs);
            layers.push(LowRank {
                weight: layer.weight.clone(),
                name: layer.name.clone(),
                rank: *rank,
                alpha: adapted.alpha,
                rslora: adapted.rslora,
                inputs: layer.inputs,
                outputs: layer.outputs,
                a,
                b,
            });
        }
        (!layers.is_empty()).then(|| Self {
            path: path.into(),
            base: None,
            targets: None,
            fingerprints: of_model(
                model,
                model.adapted_layers().iter().map(|adapted| &adapted.layer),
            ),
            layers,
        })
    }

    /// Those of one part.
    pub fn only(mut self, part: Part) -> Self {
        self.layers.retain(|layer| layer.weight.part == part);
        self.targets = None;
        self
    }

    /// The layers of a model that these adapters are for. `layers` are all that it has.
    ///
    /// # Errors
    ///
    /// A layer that the model does not have, or that is of another size; one that the folder names but
    /// has no adapter for.
    pub fn check(&self, layers: &[LinearLayer]) -> Result<Vec<AdaptedLayer>, Blip2Error> {
        let mut adapted = Vec::new();
        for low_rank in &self.layers {
            let LowRank { name, .. } = low_rank;
            let Some(layer) = layers.iter().find(|layer| layer.name == *name) else {
                return Err(folder_error(
                    &self.path,
                    format!(
                        "`{name}` is no layer of this model: the adapter was trained on another \
                         base; there are {}",
                        compacted(layers.iter().map(|layer| layer.name.as_str()))
                    ),
                ));
            };
            if (layer.inputs, layer.outputs) != (low_rank.inputs, low_rank.outputs) {
                return Err(folder_error(
                    &self.path,
                    format!(
                        "`{name}` is for a layer of {} inputs and {} outputs, but this model's has \
                         {} and {}: the adapter was trained on another base",
                        low_rank.inputs, low_rank.outputs, layer.inputs, layer.outputs
                    ),
                ));
            }
            adapted.push(AdaptedLayer {
                layer: layer.clone(),
                rank: low_rank.rank,
                alpha: low_rank.alpha,
                rslora: low_rank.rslora,
            });
        }
        if let Some(targets) = &self.targets {
            let matches = targets.matcher().map_err(|reason| {
                folder_error(&self.path, format!("`target_modules`: {reason}"))
            })?;
            let has = |name: &str| self.layers.iter().any(|layer| layer.name == name);
            let missing = layers
                .iter()
                .find(|layer| matches(&layer.name) && !has(&layer.name));
            if let Some(missing) = missing {
                return Err(folder_error(
                    &self.path,
                    format!(
                        "`target_modules` names `{}`, but there are no tensors for it: the adapter is \
                         damaged, or was trained on another base",
                        missing.name
                    ),
                ));
            }
        }
        Ok(adapted)
    }
}

/// A row-major matrix of `columns` columns, transposed.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns.max(1);
    (0..columns)
        .flat_map(|column| (0..rows).map(move |row| values[row * columns + column]))
        .collect()
}

/// The factors of adapters, in Burn's layout.
#[derive(Default)]
struct Found {
    part: Option<Part>,
    path: Vec<String>,
    a: BTreeMap<Address, Vec<f32>>,
    b: BTreeMap<Address, Vec<f32>>,
}

impl ModuleVisitor for Found {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(part) = self.part else { return };
        let into = match () {
            () if ends_with(&self.path, A) => &mut self.a,
            () if ends_with(&self.path, B) => &mut self.b,
            () => return,
        };
        let path = self.path[..self.path.len() - A.len()].join(".");
        let values = param.val().inner().into_data().iter::<f32>().collect();
        into.insert(Address { part, path }, values);
    }
}
