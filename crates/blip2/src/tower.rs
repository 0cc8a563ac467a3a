//! Frozen and trained towers.

use burn::module::{
    Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::Device;

/// An image encoder or language model inside a captioner, frozen or trained.
///
/// A frozen tower's weights lie on the plain (non-autodiff) device. Burn then treats them as
/// constants: a frozen image encoder keeps no graph at all, and a frozen language model passes
/// gradients to its input but accumulates none for itself. It is invisible to module visitors and
/// mappers too, so the optimizer never touches it and checkpoints hold the trained weights alone.
///
/// Reference: BLIP-2, section 3; both towers stay frozen in both pre-training stages.
#[derive(Debug, Clone)]
pub enum Tower<M> {
    /// Constant weights on the plain device.
    Frozen(M),
    /// An ordinary sub-module.
    Trained(M),
}

impl<M: Module> Tower<M> {
    /// Wraps `module` and puts its weights where they belong.
    pub fn new(module: M, frozen: bool) -> Self {
        if frozen {
            Self::Frozen(module.valid())
        } else {
            Self::Trained(module)
        }
    }

    /// The module, frozen or not.
    pub fn get(&self) -> &M {
        match self {
            Self::Frozen(module) | Self::Trained(module) => module,
        }
    }

    /// Whether the weights are constants.
    pub fn is_frozen(&self) -> bool {
        matches!(self, Self::Frozen(_))
    }
}

impl<M: Module> Module for Tower<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.get().collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        match self {
            Self::Frozen(module) => Self::Frozen(module.fork(&device.clone().inner())),
            Self::Trained(module) => Self::Trained(module.fork(device)),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        match self {
            Self::Frozen(module) => Self::Frozen(module.to_device(&device.clone().inner())),
            Self::Trained(module) => Self::Trained(module.to_device(device)),
        }
    }

    fn train(self) -> Self {
        match self {
            Self::Frozen(module) => Self::Frozen(module),
            Self::Trained(module) => Self::Trained(module.train()),
        }
    }

    fn valid(&self) -> Self {
        match self {
            // Already plain; its tensors are shared, not copied.
            Self::Frozen(module) => Self::Frozen(module.clone()),
            Self::Trained(module) => Self::Trained(module.valid()),
        }
    }

    fn materialize(self) -> Self {
        match self {
            Self::Frozen(module) => Self::Frozen(module.materialize()),
            Self::Trained(module) => Self::Trained(module.materialize()),
        }
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        if let Self::Trained(module) = self {
            module.visit(visitor);
        }
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        match self {
            Self::Frozen(module) => Self::Frozen(module),
            Self::Trained(module) => Self::Trained(module.map(mapper)),
        }
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplayDefault for Tower<M> {
    fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
        let name = if self.is_frozen() {
            "frozen"
        } else {
            "trained"
        };
        content.add(name, self.get()).optional()
    }

    fn num_params(&self) -> usize {
        Module::num_params(self.get())
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplay for Tower<M> {}
