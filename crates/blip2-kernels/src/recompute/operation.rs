//! The operation of autodiff.
//!
//! Its parent is the block's input. The parameters are leaves, to which nobody else passes on what they get,
//! so their gradients are put where a leaf's are looked for, and the operation takes any number of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, DispatchKindConversion, DispatchTensor, DispatchTensorKind,
};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use super::Draws;
use crate::Products;

/// Gradients, and whose they are.
type Slopes = Vec<(NodeId, DispatchTensor)>;

/// The parameters of a block that learn, by what autodiff calls them.
pub type Nodes = HashMap<ParamId, NodeId>;

/// The parameters of `block` that learn; none if neither they nor `x` need a gradient.
pub fn nodes<M: Module>(block: &M, x: &Tensor<3>) -> Option<Nodes> {
    let mut learned = Learned::default();
    block.visit(&mut learned);
    let of_input = || x.is_tracked() && node(x.clone().into_dispatch()).is_some();
    (!learned.0.is_empty() || of_input()).then_some(learned.0)
}

/// See [`crate::recomputed`].
pub fn recomputed<M, F>(
    block: &M,
    x: Tensor<3>,
    draws: Option<Draws>,
    forward: F,
    nodes: Nodes,
) -> Tensor<3>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<3>) -> Tensor<3> + Send + 'static,
{
    // Something has to stand in the graph, even if the block's parameters alone learn.
    let x = match x.is_tracked() {
        true => x,
        false => Tensor::from_inner(x.inner()).require_grad(),
    };
    let input = x.clone().inner();
    let block = block.clone().map(&mut Constants(&nodes));
    let pass = Pass {
        products: Products::current(),
        draws,
        forward,
    };
    // On the side of autodiff, where dropout drops; but nothing requires a gradient, so nothing is kept.
    let out = pass
        .run(&block, Tensor::from_inner(input.clone()))
        .inner()
        .into_dispatch();
    let x = x.into_dispatch();
    let of_input = node(x.clone()).expect("a tracked input");
    let again = move |slope: Tensor<3>| {
        let block = block.map(&mut Leaves(&nodes));
        let input = Tensor::from_inner(input).require_grad();
        let out = pass.run(&block, input.clone());
        let mut gradients = (out * Tensor::from_inner(slope)).sum().backward();
        let of_x = match input.grad_remove(&mut gradients) {
            Some(gradient) => gradient,
            None => input.inner().zeros_like(),
        };
        let mut gathered = Gathered {
            nodes: &nodes,
            gradients,
            found: vec![(of_input, of_x.into_dispatch())],
        };
        block.visit(&mut gathered);
        gathered.found
    };
    Tensor::from_dispatch(attached(x, out, Again::new(again)))
}

/// How a block runs, the second time as the first.
struct Pass<F> {
    products: Products,
    draws: Option<Draws>,
    forward: F,
}

impl<F> Pass<F> {
    fn run<M>(&self, block: &M, x: Tensor<3>) -> Tensor<3>
    where
        F: Fn(&M, Tensor<3>) -> Tensor<3>,
    {
        self.products.during(|| match &self.draws {
            Some(draws) => draws.during(|| (self.forward)(block, x)),
            None => (self.forward)(block, x),
        })
    }
}

/// What autodiff calls `tensor`, on the backends that are known here.
fn node(tensor: DispatchTensor) -> Option<NodeId> {
    let DispatchTensorKind::Autodiff(kind) = tensor.kind else {
        return None;
    };
    match *kind {
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(tensor) => Some(tensor.as_autodiff().id()),
        #[cfg(feature = "cube")]
        DispatchTensorKind::Cube(tensor) => Some(tensor.as_autodiff().id()),
        #[cfg(feature = "remote")]
        DispatchTensorKind::Remote(tensor) => Some(tensor.as_autodiff().id()),
        _ => None,
    }
}

/// `out` as a result of `x`, with the gradients that `again` finds.
fn attached(x: DispatchTensor, out: DispatchTensor, again: Again) -> DispatchTensor {
    let DispatchTensorKind::Autodiff(kind) = x.kind else {
        unreachable!("x is tracked");
    };
    let kind = match *kind {
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(x) => {
            let out = attached_on::<burn::backend::Flex>(x.autodiff(), out, again);
            DispatchTensorKind::Flex(BackendTensor::Autodiff(out))
        }
        #[cfg(feature = "cube")]
        DispatchTensorKind::Cube(x) => {
            let out = attached_on::<burn::backend::Cube>(x.autodiff(), out, again);
            DispatchTensorKind::Cube(BackendTensor::Autodiff(out))
        }
        #[cfg(feature = "remote")]
        DispatchTensorKind::Remote(x) => {
            let out = attached_on::<burn::backend::Remote>(x.autodiff(), out, again);
            DispatchTensorKind::Remote(BackendTensor::Autodiff(out))
        }
        _ => unreachable!("x has a node"),
    };
    DispatchTensor {
        kind: DispatchTensorKind::Autodiff(Box::new(kind)),
        autodiff: x.autodiff,
    }
}

fn attached_on<B>(
    x: FloatTensor<Autodiff<B>>,
    out: DispatchTensor,
    again: Again,
) -> FloatTensor<Autodiff<B>>
where
    B: Backend,
    DispatchTensor: DispatchKindConversion<B>,
{
    let (_, node) = x.into_parts();
    let out = primitive::<B>(out);
    match Backward::<B, 1>::prepare::<NoCheckpointing>(Recompute, [node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(again, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

fn primitive<B>(tensor: DispatchTensor) -> FloatTensor<B>
where
    B: Backend,
    DispatchTensor: DispatchKindConversion<B>,
{
    <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor)
        .expect("a block stays on the device of its input")
        .float()
}

/// The second run, which happens once: what it holds is freed as it goes.
#[derive(Clone)]
struct Again(Arc<Mutex<Option<Rerun>>>);

type Rerun = Box<dyn FnOnce(Tensor<3>) -> Slopes + Send>;

impl Again {
    fn new(run: impl FnOnce(Tensor<3>) -> Slopes + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(run)))))
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Again")
    }
}

#[derive(Debug)]
struct Recompute;

impl<B> Backward<B, 1> for Recompute
where
    B: Backend,
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = Again;

    fn backward(self, ops: Ops<Again, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let slope = Tensor::<3>::from_primitive::<B>(grads.consume::<B>(&ops.node));
        let Again(run) = ops.state;
        let run = run.lock().unwrap_or_else(PoisonError::into_inner).take();
        let run = run.expect("Burn takes a step of the graph once");
        for (node, gradient) in run(slope) {
            grads.register::<B>(node, primitive::<B>(gradient));
        }
    }
}

#[derive(Default)]
struct Learned(Nodes);

impl ModuleVisitor for Learned {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.base();
        if tensor.is_require_grad()
            && let Some(node) = node(tensor.into_dispatch())
        {
            self.0.insert(param.id, node);
        }
    }
}

/// Takes parameters out of the graph.
struct Constants<'a>(&'a Nodes);

impl ModuleMapper for Constants<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.contains_key(&param.id) {
            true => param.map(|tensor| Tensor::from_inner(tensor.inner())),
            false => param,
        }
    }
}

/// Makes them leaves of a graph of their own: the graph outside is locked while it goes back.
struct Leaves<'a>(&'a Nodes);

impl ModuleMapper for Leaves<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.contains_key(&param.id) {
            true => param.map(Tensor::require_grad),
            false => param,
        }
    }
}

/// Finds the gradients of the leaves.
struct Gathered<'a> {
    nodes: &'a Nodes,
    gradients: burn::tensor::Gradients,
    found: Slopes,
}

impl ModuleVisitor for Gathered<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(&node) = self.nodes.get(&param.id) else {
            return;
        };
        if let Some(gradient) = param.base().grad_remove(&mut self.gradients) {
            self.found.push((node, gradient.into_dispatch()));
        }
    }
}
