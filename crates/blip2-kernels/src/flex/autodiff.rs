//! The gradients of the operations.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, QuantizedTensor};
use burn::backend::{Autodiff, AutodiffBackend, Flex};
use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::weights::Weights;
use super::{
    AttentionInputs, Kernels, activation, affine, dense, dropout, layer_norm, linear, numbers,
    owned, quantized, tensor, vector,
};
use crate::{Activation, AdamWStep, DropoutSeed, Products};

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Activation,
        products: Products,
    ) -> FloatTensor<Self> {
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        match LinearBackward
            .prepare::<C>([x_node, weight_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::UnTracked(prep) => {
                prep.finish(Flex::fused_linear(x, weight, bias, activation, products))
            }
            OpsKind::Tracked(prep) => {
                let (x, weight) = (dense(x), dense(weight));
                let (mut before, shape) = affine(&x, &weight, products);
                activation::add_bias(&mut before, numbers(&dense(bias)), Activation::None);
                let state = |before| LinearState {
                    dims: weight.layout().shape().dims(),
                    // Each is needed for the other's gradient.
                    x: weight_tracked.then(|| x.clone()),
                    weight: x_tracked.then(|| weight.clone()),
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

    fn fused_quantized_linear(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Activation,
        products: Products,
    ) -> FloatTensor<Self> {
        quantized::tracked::<C>(x, weight, bias, activation, products)
    }

    fn fused_logits(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        products: Products,
    ) -> FloatTensor<Self> {
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (x, weight) = (dense(x), dense(weight));
        let state = LogitsState {
            x: weight_tracked.then(|| x.clone()),
            weight: x_tracked.then(|| weight.clone()),
            products,
        };
        let out = Flex::fused_logits(x, weight, products);
        match LogitsBackward
            .prepare::<C>([x_node, weight_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::UnTracked(prep) => prep.finish(out),
            OpsKind::Tracked(prep) => prep.finish(state, out),
        }
    }

    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        heads: usize,
        dropout: Option<DropoutSeed>,
        products: Products,
    ) -> FloatTensor<Self> {
        let ((query, query_node), (key, key_node), (value, value_node)) =
            (query.into_parts(), key.into_parts(), value.into_parts());
        let tensors = [query, key, value, bias.into_primitive()];
        let inputs = AttentionInputs::new(tensors, heads, dropout, products);
        let (out, logs) = inputs.attention().forward();
        let out = tensor(out, inputs.query.layout().shape().clone());
        match AttentionBackward
            .prepare::<C>([query_node, key_node, value_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::UnTracked(prep) => prep.finish(out),
            OpsKind::Tracked(prep) => {
                let logs_shape = Shape::from([logs.len()]);
                let state = AttentionState {
                    inputs,
                    out: out.clone(),
                    logs: tensor(logs, logs_shape),
                };
                prep.finish(state, out)
            }
        }
    }

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (gamma, gamma_node), (beta, beta_node)) =
            (x.into_parts(), gamma.into_parts(), beta.into_parts());
        let (x, gamma) = (dense(x), dense(gamma));
        let out = Flex::fused_layer_norm(x.clone(), gamma.clone(), beta, epsilon);
        match LayerNormBackward
            .prepare::<C>([x_node, gamma_node, beta_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::UnTracked(prep) => prep.finish(out),
            OpsKind::Tracked(prep) => prep.finish(LayerNormState { x, gamma, epsilon }, out),
        }
    }

    fn fused_dropout(x: FloatTensor<Self>, dropout: DropoutSeed) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let out = Flex::fused_dropout(x, dropout);
        match DropoutBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::UnTracked(prep) => prep.finish(out),
            OpsKind::Tracked(prep) => prep.finish(dropout, out),
        }
    }

    fn fused_cross_entropy(
        logits: FloatTensor<Self>,
        ids: Vec<usize>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (loss, slopes) = Flex::fused_cross_entropy(logits.into_primitive(), ids);
        (Self::from_inner(loss), Self::from_inner(slopes))
    }

    fn fused_adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (weight, first, second) = Flex::fused_adamw(
            weight.into_primitive(),
            grad.into_primitive(),
            first.into_primitive(),
            second.into_primitive(),
            step,
        );
        let constant = Self::from_inner;
        (constant(weight), constant(first), constant(second))
    }

    fn fused_squared_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(Flex::fused_squared_sum(x.into_primitive()))
    }
}

#[derive(Debug)]
struct LinearBackward;

#[derive(Debug, Clone)]
struct LinearState {
    dims: [usize; 2],
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
    /// What the activation was applied to, if there is one.
    before: Option<FlexTensor>,
    activation: Activation,
    products: Products,
}

impl Backward<Flex, 3> for LinearBackward {
    type State = LinearState;

    fn backward(self, ops: Ops<LinearState, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let state = ops.state;
        let [inputs, outputs] = state.dims;
        let mut grad = dense(grads.consume::<Flex>(&ops.node));
        if let Some(before) = &state.before {
            activation::backward(owned(&mut grad), numbers(before), state.activation);
        }
        let grad = numbers(&grad);
        let rows = grad.len() / outputs;
        let [x_node, weight_node, bias_node] = ops.parents;
        if let (Some(node), Some(weight)) = (x_node, &state.weight) {
            let x_grad =
                linear::forward_transposed(grad, Weights::of(weight), state.dims, state.products);
            grads.register::<Flex>(node.id, tensor(x_grad, Shape::from([rows, inputs])));
        }
        if let (Some(node), Some(x)) = (weight_node, &state.x) {
            let weight_grad = linear::weight_grad(numbers(x), grad, state.dims, state.products);
            grads.register::<Flex>(node.id, tensor(weight_grad, Shape::from(state.dims)));
        }
        if let Some(node) = bias_node {
            let bias_grad = vector::column_sums(grad, outputs);
            grads.register::<Flex>(node.id, tensor(bias_grad, Shape::from([outputs])));
        }
    }
}

#[derive(Debug)]
struct LogitsBackward;

#[derive(Debug, Clone)]
struct LogitsState {
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
    products: Products,
}

impl Backward<Flex, 2> for LogitsBackward {
    type State = LogitsState;

    fn backward(self, ops: Ops<LogitsState, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = dense(grads.consume::<Flex>(&ops.node));
        let [rows, vocabulary]: [usize; 2] = grad.layout().shape().dims();
        let grad = numbers(&grad);
        let [x_node, weight_node] = ops.parents;
        if let (Some(node), Some(weight)) = (x_node, &ops.state.weight) {
            let dims: [usize; 2] = weight.layout().shape().dims();
            let x_grad = linear::forward(grad, Weights::of(weight), dims, ops.state.products);
            grads.register::<Flex>(node.id, tensor(x_grad, Shape::from([rows, dims[1]])));
        }
        if let (Some(node), Some(x)) = (weight_node, &ops.state.x) {
            let dims = [vocabulary, x.layout().shape()[1]];
            let weight_grad = linear::weight_grad(grad, numbers(x), dims, ops.state.products);
            grads.register::<Flex>(node.id, tensor(weight_grad, Shape::from(dims)));
        }
    }
}

#[derive(Debug)]
struct AttentionBackward;

#[derive(Debug, Clone)]
struct AttentionState {
    inputs: AttentionInputs,
    out: FlexTensor,
    logs: FlexTensor,
}

impl Backward<Flex, 3> for AttentionBackward {
    type State = AttentionState;

    fn backward(self, ops: Ops<AttentionState, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let AttentionState { inputs, out, logs } = ops.state;
        let grad = dense(grads.consume::<Flex>(&ops.node));
        let parts = inputs
            .attention()
            .backward(numbers(&out), numbers(&logs), numbers(&grad));
        let shapes = [&inputs.query, &inputs.key, &inputs.value];
        for ((node, part), like) in ops.parents.into_iter().zip(parts).zip(shapes) {
            if let Some(node) = node {
                let shape = like.layout().shape().clone();
                grads.register::<Flex>(node.id, tensor(part, shape));
            }
        }
    }
}

#[derive(Debug)]
struct LayerNormBackward;

#[derive(Debug, Clone)]
struct LayerNormState {
    x: FlexTensor,
    gamma: FlexTensor,
    epsilon: f64,
}

impl Backward<Flex, 3> for LayerNormBackward {
    type State = LayerNormState;

    fn backward(self, ops: Ops<LayerNormState, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let LayerNormState { x, gamma, epsilon } = ops.state;
        let mut grad = dense(grads.consume::<Flex>(&ops.node));
        let (gamma_grad, beta_grad) = layer_norm::backward(
            numbers(&x),
            owned(&mut grad),
            numbers(&gamma),
            epsilon as f32,
        );
        let [x_node, gamma_node, beta_node] = ops.parents;
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, grad);
        }
        for (node, part) in [(gamma_node, gamma_grad), (beta_node, beta_grad)] {
            if let Some(node) = node {
                let shape = Shape::from([part.len()]);
                grads.register::<Flex>(node.id, tensor(part, shape));
            }
        }
    }
}

#[derive(Debug)]
struct DropoutBackward;

impl Backward<Flex, 1> for DropoutBackward {
    type State = DropoutSeed;

    fn backward(self, ops: Ops<DropoutSeed, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut grad = dense(grads.consume::<Flex>(&ops.node));
        let [node] = ops.parents;
        if let Some(node) = node {
            dropout::apply(owned(&mut grad), ops.state);
            grads.register::<Flex>(node.id, grad);
        }
    }
}
