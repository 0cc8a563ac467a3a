//! Frozen, trained and adapted parts.

use std::ops::Deref;

use blip2_data::ImageInput;
use blip2_kernels::Dequantized;
use blip2_vision::VisionTransformer;
use burn::module::{
    Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
};
use burn::tensor::{Device, Tensor};

use crate::Compute;

/// A part of a captioner, frozen, trained or adapted.
///
/// A frozen part's weights lie on the plain (non-autodiff) device. Burn then treats them as
/// constants: a frozen image encoder keeps no graph at all, and a frozen language model passes
/// gradients to its input but accumulates none for itself. It is invisible to module visitors and
/// mappers too, so the optimizer never touches it and checkpoints hold the trained weights alone.
///
/// An adapted part is frozen but for LoRA adapters on some of its weights: visitors and mappers see
/// those alone, and they lie on the device that the part is trained on.
///
/// Reference: BLIP-2, section 3; both towers stay frozen in both pre-training stages.
#[derive(Debug, Clone)]
pub enum Tower<M> {
    /// Constant weights on the plain device.
    Frozen(M),
    /// An ordinary sub-module.
    Trained(M),
    /// Constant weights on the plain device, with LoRA adapters.
    Adapted(M),
}

/// The container that Burn names when a visitor enters what is attached to a parameter.
const ATTACHED: &str = "Reparameterization";

impl<M: Module> Tower<M> {
    /// Wraps `module` and puts its weights where they belong.
    pub fn new(module: M, frozen: bool) -> Self {
        if frozen {
            Self::Frozen(module.valid())
        } else {
            Self::Trained(module)
        }
    }

    /// Wraps `module`, which lies on the plain device, and puts its adapters on the one to train on.
    pub(crate) fn adapted(module: M, device: &Device) -> Self {
        match device.is_autodiff() {
            true => Self::Adapted(module.map(&mut OnlyAdapters::new(&mut ToAutodiff))),
            false => Self::Adapted(module),
        }
    }

    /// The module, in whatever state.
    pub fn get(&self) -> &M {
        match self {
            Self::Frozen(module) | Self::Trained(module) | Self::Adapted(module) => module,
        }
    }

    /// As [`get`](Self::get), by value.
    pub(crate) fn into_module(self) -> M {
        match self {
            Self::Frozen(module) | Self::Trained(module) | Self::Adapted(module) => module,
        }
    }

    /// The part with all weights constant.
    pub(crate) fn into_frozen(self) -> Self {
        Self::new(self.into_module(), true)
    }

    /// Whether all weights are constants.
    pub fn is_frozen(&self) -> bool {
        matches!(self, Self::Frozen(_))
    }

    /// Whether adapters are all that can learn.
    pub fn is_adapted(&self) -> bool {
        matches!(self, Self::Adapted(_))
    }

    /// Shows `visitor` the constant weights: all of a frozen part, those of an adapted one that are no
    /// adapters, none of a trained one.
    pub fn visit_constants<V: ModuleVisitor>(&self, visitor: &mut V) {
        match self {
            Self::Frozen(module) => module.visit(visitor),
            Self::Adapted(module) => module.visit(&mut NoAdapters::new(visitor)),
            Self::Trained(_) => {}
        }
    }

    /// The part with its adapters added to its weights, frozen; others as they are, on the plain device.
    pub fn merged(&self) -> M {
        // Burn adds adapters to what it can read: not to four bits.
        let module = self.get().valid().map(&mut Dequantized);
        module.materialize()
    }
}

impl Tower<VisionTransformer> {
    /// What the image encoder makes of the images; embeddings are returned as they are.
    ///
    /// # Shapes
    /// - `images`: `[batch, 3, height, width]`, normalised; or `image_embeds`
    /// - returns: `[batch, image_tokens, vision_width]`
    pub(crate) fn image_embeds(
        &self,
        images: ImageInput,
        compute: Compute,
        recompute: bool,
    ) -> Tensor<3> {
        let encoder = self.get();
        match images {
            // Pixels are constants wherever they come from.
            ImageInput::Pixels(images) => compute.products().during(|| match recompute {
                true => encoder.forward_recomputed(images.inner()),
                false => encoder.forward(images.inner()),
            }),
            ImageInput::Embeds(image_embeds) => image_embeds,
        }
    }
}

/// What a captioner computes does not depend on who learns.
impl<M> Deref for Tower<M> {
    type Target = M;

    fn deref(&self) -> &M {
        match self {
            Self::Frozen(module) | Self::Trained(module) | Self::Adapted(module) => module,
        }
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
            // Burn keeps each tensor on its side of autodiff.
            Self::Adapted(module) => Self::Adapted(module.fork(device)),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        match self {
            Self::Frozen(module) => Self::Frozen(module.to_device(&device.clone().inner())),
            Self::Trained(module) => Self::Trained(module.to_device(device)),
            Self::Adapted(module) => Self::Adapted(module.to_device(device)),
        }
    }

    fn train(self) -> Self {
        match self {
            Self::Frozen(module) => Self::Frozen(module),
            Self::Trained(module) => Self::Trained(module.train()),
            Self::Adapted(module) => {
                Self::Adapted(module.map(&mut OnlyAdapters::new(&mut ToAutodiff)))
            }
        }
    }

    fn valid(&self) -> Self {
        match self {
            // Already plain; its tensors are shared, not copied.
            Self::Frozen(module) => Self::Frozen(module.clone()),
            Self::Trained(module) => Self::Trained(module.valid()),
            Self::Adapted(module) => Self::Adapted(
                module
                    .clone()
                    .map(&mut OnlyAdapters::new(&mut FromAutodiff)),
            ),
        }
    }

    fn materialize(self) -> Self {
        match self {
            Self::Frozen(module) => Self::Frozen(module.materialize()),
            Self::Trained(module) => Self::Trained(module.materialize()),
            Self::Adapted(_) => Self::Frozen(self.merged()),
        }
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        match self {
            Self::Frozen(_) => {}
            Self::Trained(module) => module.visit(visitor),
            Self::Adapted(module) => module.visit(&mut OnlyAdapters::new(visitor)),
        }
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        match self {
            Self::Frozen(module) => Self::Frozen(module),
            Self::Trained(module) => Self::Trained(module.map(mapper)),
            Self::Adapted(module) => Self::Adapted(module.map(&mut OnlyAdapters::new(mapper))),
        }
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplayDefault for Tower<M> {
    fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
        let name = match self {
            Self::Frozen(_) => "frozen",
            Self::Trained(_) => "trained",
            Self::Adapted(_) => "adapted",
        };
        content.add(name, self.get()).optional()
    }

    fn num_params(&self) -> usize {
        Module::num_params(self.get())
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplay for Tower<M> {}

/// Shows another visitor or mapper the adapters alone, under their full paths.
struct OnlyAdapters<'a, V> {
    inner: &'a mut V,
    inside: bool,
}

impl<'a, V> OnlyAdapters<'a, V> {
    fn new(inner: &'a mut V) -> Self {
        let inside = false;
        Self { inner, inside }
    }
}

impl<V: ModuleVisitor> ModuleVisitor for OnlyAdapters<'_, V> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.inside |= container == ATTACHED;
        self.inner.enter_module(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.inside &= container != ATTACHED;
        self.inner.exit_module(name, container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.inside {
            self.inner.visit_float(param);
        }
    }
}

impl<V: ModuleMapper> ModuleMapper for OnlyAdapters<'_, V> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.inside |= container == ATTACHED;
        self.inner.enter_module(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.inside &= container != ATTACHED;
        self.inner.exit_module(name, container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.inside {
            true => self.inner.map_float(param),
            false => param,
        }
    }
}

/// Shows another visitor everything but adapters.
struct NoAdapters<'a, V>(OnlyAdapters<'a, V>);

impl<'a, V> NoAdapters<'a, V> {
    fn new(inner: &'a mut V) -> Self {
        Self(OnlyAdapters::new(inner))
    }
}

impl<V: ModuleVisitor> ModuleVisitor for NoAdapters<'_, V> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.0.inside {
            self.0.inner.visit_float(param);
        }
    }
}

struct ToAutodiff;

impl ModuleMapper for ToAutodiff {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.autodiff().detach().require_grad())
    }
}

struct FromAutodiff;

impl ModuleMapper for FromAutodiff {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.inner())
    }
}
