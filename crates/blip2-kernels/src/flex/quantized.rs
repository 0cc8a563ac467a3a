//! Linear layers with a quantized weight, which is a constant.
//!
//! Burn's own way would be to dequantize it first: autodiff would then keep the wide copy of every
//! layer's weight until the backward pass.

use burn::backend::Autodiff;
use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::tensor::Shape;
use burn_flex::{FlexQTensor, FlexTensor};

use super::weights::Weights;
use super::{Kernels, activation, dense, linear, numbers, owned, tensor, vector};
use crate::{Activation, Products};

/// `x · weight`, and its shape.
pub(super) fn affine(
    x: &FlexTensor,
    weight: &FlexQTensor,
    products: Products,
) -> (Vec<f32>, Shape) {
    let rows = x.layout().shape()[0];
    let dims = dims(weight);
    let out = linear::forward(numbers(x), Weights::of_quantized(weight), dims, products);
    (out, Shape::from([rows, dims[1]]))
}

fn dims(weight: &FlexQTensor) -> [usize; 2] {
    weight.tensor().layout().shape().dims()
}

/// `activation(x · weight + bias)` with its gradient for `x` and `bias`.
pub(super) fn tracked<C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<Flex, C>>,
    weight: FlexQTensor,
    bias: FloatTensor<Autodiff<Flex, C>>,
    activation: Activation,
    products: Products,
) -> FloatTensor<Autodiff<Flex, C>> {
    let ((x, x_node), (bias, bias_node)) = (x.into_parts(), bias.into_parts());
    match QuantizedLinearBackward
        .prepare::<C>([x_node, bias_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::UnTracked(prep) => prep.finish(Flex::fused_quantized_linear(
            x, weight, bias, activation, products,
        )),
        OpsKind::Tracked(prep) => {
            let (mut before, shape) = affine(&dense(x), &weight, products);
            activation::add_bias(&mut before, numbers(&dense(bias)), Activation::None);
            let state = |before| QuantizedLinearState {
                weight: weight.clone(),
                before,
                activation,
                products,
            };
            if activation == Activation::None {
                return prep.finish(state(None), tensor(before, shape));
            }
            let out = activation::apply(&before, activation);
            let before = tensor(before, shape.clone());
            prep.finish(state(Some(before)), tensor(out, shape))
        }
    }
}

#[derive(Debug)]
struct QuantizedLinearBackward;

#[derive(Debug, Clone)]
struct QuantizedLinearState {
    /// Shared with the module, not copied.
    weight: FlexQTensor,
    /// What the activation was applied to, if there is one.
    before: Option<FlexTensor>,
    activation: Activation,
    products: Products,
}

impl Backward<Flex, 2> for QuantizedLinearBackward {
    type State = QuantizedLinearState;

    fn backward(
        self,
        ops: Ops<QuantizedLinearState, 2>,
        grads: &mut Gradients,
        _: &mut Checkpointer,
    ) {
        let state = ops.state;
        let [inputs, outputs] = dims(&state.weight);
        let mut grad = dense(grads.consume::<Flex>(&ops.node));
        if let Some(before) = &state.before {
            activation::backward(owned(&mut grad), numbers(before), state.activation);
        }
        let grad = numbers(&grad);
        let rows = grad.len() / outputs;
        let [x_node, bias_node] = ops.parents;
        if let Some(node) = x_node {
            let weights = Weights::of_quantized(&state.weight);
            let dims = [inputs, outputs];
            let x_grad = linear::forward_transposed(grad, weights, dims, state.products);
            grads.register::<Flex>(node.id, tensor(x_grad, Shape::from([rows, inputs])));
        }
        if let Some(node) = bias_node {
            let bias_grad = vector::column_sums(grad, outputs);
            grads.register::<Flex>(node.id, tensor(bias_grad, Shape::from([outputs])));
        }
    }
}
