//! The tensors of modules in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use blip2_kernels::dequantized;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::checkpoint::names::{Address, Layout, Part};
use crate::checkpoint::weights::{Weight, Weights};
use crate::stage1::Blip2Qformer;
use crate::{Blip2Caption, Tower};

/// Every tensor of a captioner, frozen ones as well; adapters are added to the weights that they are
/// for. `name` stands in messages.
pub fn weights_of(model: &Blip2Caption, name: &Path) -> Weights {
    let mut all = empty(Layout::Native, name);
    let name: Arc<Path> = name.into();
    add(
        &mut all,
        Part::VisionBackbone,
        &model.vision_backbone,
        &name,
    );
    add(&mut all, Part::LnVision, &model.ln_vision, &name);
    add(
        &mut all,
        Part::MultimodalBackbone,
        &model.multimodal_backbone,
        &name,
    );
    add(&mut all, Part::VisionNeck, &model.vision_neck, &name);
    add(&mut all, Part::TextBackbone, &model.text_backbone, &name);
    all
}

/// Every tensor of a model of stage 1.
pub(in crate::checkpoint) fn weights_of_stage1(model: &Blip2Qformer, name: &Path) -> Weights {
    let mut all = empty(Layout::Native, name);
    let name: Arc<Path> = name.into();
    for tensors in [
        capture(Part::VisionBackbone, model.vision_backbone.get(), &name),
        capture(Part::LnVision, &model.ln_vision, &name),
        capture(Part::MultimodalBackbone, &model.multimodal_backbone, &name),
        capture(Part::Heads, &model.heads, &name),
    ] {
        all.tensors.extend(tensors);
    }
    all
}

fn add<M: Module>(all: &mut Weights, part: Part, tower: &Tower<M>, name: &Arc<Path>) {
    let tensors = match tower.is_adapted() {
        true => capture(part, &tower.merged(), name),
        false => capture(part, tower.get(), name),
    };
    all.tensors.extend(tensors);
}

/// Every tensor of a module that is `part` of a captioner.
pub fn weights_of_module<M: Module>(
    part: Part,
    module: &M,
    layout: Layout,
    name: &Path,
) -> Weights {
    Weights {
        tensors: capture(part, module, &name.into()),
        ..empty(layout, name)
    }
}

fn empty(layout: Layout, name: &Path) -> Weights {
    Weights {
        layout,
        path: name.into(),
        tensors: BTreeMap::new(),
        dropped: Vec::new(),
        unexpected: Vec::new(),
    }
}

fn capture<M: Module>(part: Part, module: &M, file: &Arc<Path>) -> BTreeMap<Address, Weight> {
    let mut capture = Capture {
        part,
        file: file.clone(),
        path: Vec::new(),
        tensors: BTreeMap::new(),
    };
    module.visit(&mut capture);
    capture.tensors
}

struct Capture {
    part: Part,
    file: Arc<Path>,
    path: Vec<String>,
    tensors: BTreeMap<Address, Weight>,
}

impl ModuleVisitor for Capture {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // A quantized weight is written as what it stands for.
        let tensor = dequantized(param.val().inner());
        let address = Address {
            part: self.part,
            path: self.path.join("."),
        };
        let mut weight = Weight::new(
            self.file.clone(),
            format!("{}.{}", self.part.name(), address.path),
            tensor.dtype(),
            tensor.dims().to_vec(),
            move || Ok(tensor.to_data().into_bytes().to_vec()),
        );
        weight.burn_layout = true;
        self.tensors.insert(address, weight);
    }
}
