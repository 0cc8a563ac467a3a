//! The operations of a transformer on a CPU, each in one pass over its numbers and with a gradient of
//! its own, as an extension of Burn's backend `flex`.
//!
//! `flex` computes such an operation as a chain of simple ones: each allocates and writes a tensor, most
//! of them on one thread, and autodiff keeps what lies between. The public functions of this crate
//! choose: these operations for f32 tensors on `flex`, Burn's own for all others.

mod activation;
mod adamw;
mod attention;
mod autodiff;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod cross_entropy;
mod dropout;
mod few_rows;
#[cfg(target_arch = "x86_64")]
mod int8;
mod layer_norm;
mod linear;
mod matrix;
pub mod nibbles;
mod quantized;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod vector;
mod weights;

use burn::backend::tensor::{FloatTensor, QuantizedTensor};
use burn::backend::{Backend, Flex, backend_extension};
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexQTensor, FlexTensor, Layout};

use self::weights::Weights;
use crate::{Activation, AdamWStep, DropoutSeed, Products};

/// The operations. All tensors but weights are f32.
#[backend_extension(Flex, Autodiff)]
pub trait Kernels: Backend {
    /// `activation(x · weight + bias)`: `[rows, inputs]`, `[inputs, outputs]`, `[outputs]`.
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Activation,
        products: Products,
    ) -> FloatTensor<Self>;

    /// As [`fused_linear`](Self::fused_linear); the weight is a constant.
    fn fused_quantized_linear(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Activation,
        products: Products,
    ) -> FloatTensor<Self>;

    /// `x · weightᵀ`: `[rows, width]`, `[vocabulary, width]`.
    fn fused_logits(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        products: Products,
    ) -> FloatTensor<Self>;

    /// Attention of `[batch, queries, width]` to `[batch, keys, width]` twice; `bias` is broadcast to
    /// `[batch, heads, queries, keys]`.
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        heads: usize,
        dropout: Option<DropoutSeed>,
        products: Products,
    ) -> FloatTensor<Self>;

    /// Layer norm over the last dimension.
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    /// Drops numbers and scales those that stay.
    fn fused_dropout(x: FloatTensor<Self>, dropout: DropoutSeed) -> FloatTensor<Self>;

    /// The summed cross-entropy, and its slopes for the logits, which are not differentiated further:
    /// `[rows, vocabulary]` and an id for each row.
    fn fused_cross_entropy(
        logits: FloatTensor<Self>,
        ids: Vec<usize>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// A weight and its moments after a step of AdamW; not differentiated.
    fn fused_adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The sum of squares, `[1]`; not differentiated.
    fn fused_squared_sum(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Kernels for Flex {
    fn fused_linear(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        activation: Activation,
        products: Products,
    ) -> FlexTensor {
        let (mut out, shape) = affine(&dense(x), &dense(weight), products);
        activation::add_bias(&mut out, numbers(&dense(bias)), activation);
        tensor(out, shape)
    }

    fn fused_quantized_linear(
        x: FlexTensor,
        weight: FlexQTensor,
        bias: FlexTensor,
        activation: Activation,
        products: Products,
    ) -> FlexTensor {
        let (mut out, shape) = quantized::affine(&dense(x), &weight, products);
        activation::add_bias(&mut out, numbers(&dense(bias)), activation);
        tensor(out, shape)
    }

    fn fused_logits(x: FlexTensor, weight: FlexTensor, products: Products) -> FlexTensor {
        let x = dense(x);
        let weight = dense(weight);
        let shape = [x.layout().shape()[0], weight.layout().shape()[0]];
        let dims = weight.layout().shape().dims();
        let out = linear::forward_transposed(numbers(&x), Weights::of(&weight), dims, products);
        tensor(out, Shape::from(shape))
    }

    fn fused_attention(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        bias: FlexTensor,
        heads: usize,
        dropout: Option<DropoutSeed>,
        products: Products,
    ) -> FlexTensor {
        let inputs = AttentionInputs::new([query, key, value, bias], heads, dropout, products);
        let (out, _) = inputs.attention().forward();
        tensor(out, inputs.query.layout().shape().clone())
    }

    fn fused_layer_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
    ) -> FlexTensor {
        let (x, gamma, beta) = (dense(x), dense(gamma), dense(beta));
        let out = layer_norm::forward(numbers(&x), numbers(&gamma), numbers(&beta), epsilon as f32);
        tensor(out, x.layout().shape().clone())
    }

    fn fused_dropout(x: FlexTensor, dropout: DropoutSeed) -> FlexTensor {
        let mut x = dense(x);
        let out = owned(&mut x);
        dropout::apply(out, dropout);
        x
    }

    fn fused_cross_entropy(logits: FlexTensor, ids: Vec<usize>) -> (FlexTensor, FlexTensor) {
        let mut logits = dense(logits);
        let loss = cross_entropy::loss(owned(&mut logits), &ids);
        (tensor(vec![loss], Shape::from([1])), logits)
    }

    fn fused_adamw(
        weight: FlexTensor,
        grad: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (mut weight, grad) = (dense(weight), dense(grad));
        let (mut first, mut second) = (dense(first), dense(second));
        adamw::step(
            owned(&mut weight),
            numbers(&grad),
            owned(&mut first),
            owned(&mut second),
            step,
        );
        (weight, first, second)
    }

    fn fused_squared_sum(x: FlexTensor) -> FlexTensor {
        let sum = adamw::squared_sum(numbers(&dense(x)));
        tensor(vec![sum], Shape::from([1]))
    }
}

/// `x · weight`, and its shape.
fn affine(x: &FlexTensor, weight: &FlexTensor, products: Products) -> (Vec<f32>, Shape) {
    let rows = x.layout().shape()[0];
    let dims: [usize; 2] = weight.layout().shape().dims();
    let out = linear::forward(numbers(x), Weights::of(weight), dims, products);
    (out, Shape::from([rows, dims[1]]))
}

/// The inputs of an attention, laid out so that [`attention::Attention`] can look into them.
#[derive(Debug, Clone)]
struct AttentionInputs {
    query: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
    /// None where nothing is added.
    bias: Option<FlexTensor>,
    heads: usize,
    dropout: Option<DropoutSeed>,
    products: Products,
}

impl AttentionInputs {
    fn new(
        [query, key, value, bias]: [FlexTensor; 4],
        heads: usize,
        dropout: Option<DropoutSeed>,
        products: Products,
    ) -> Self {
        let adds = bias.layout().num_elements() > 0;
        Self {
            query: dense_rows(query),
            key: dense_rows(key),
            value: dense_rows(value),
            bias: adds.then(|| dense_rows(bias)),
            heads,
            dropout,
            products,
        }
    }

    fn attention(&self) -> attention::Attention<'_> {
        let [batch, queries, width]: [usize; 3] = self.query.layout().shape().dims();
        let [_, keys, _]: [usize; 3] = self.key.layout().shape().dims();
        let rows = |tensor| {
            let (numbers, strides) = view(tensor);
            attention::Rows {
                numbers,
                batch_stride: strides[0],
                row_stride: strides[1],
            }
        };
        let bias = match &self.bias {
            None => attention::Bias {
                numbers: &[],
                strides: [0; 3],
            },
            Some(bias) => {
                let dims: [usize; 4] = bias.layout().shape().dims();
                let (numbers, strides) = view(bias);
                let stride = |dim: usize| match dims[dim] {
                    1 => 0,
                    _ => strides[dim],
                };
                attention::Bias {
                    numbers,
                    strides: [stride(0), stride(1), stride(2)],
                }
            }
        };
        attention::Attention {
            shape: attention::Shape {
                batch,
                queries,
                keys,
                heads: self.heads,
                head_dim: width / self.heads,
            },
            query: rows(&self.query),
            key: rows(&self.key),
            value: rows(&self.value),
            bias,
            dropout: self.dropout,
            products: self.products,
        }
    }
}

/// The tensor with its numbers in row-major order.
fn dense(tensor: FlexTensor) -> FlexTensor {
    match tensor.layout().contiguous_offsets() {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

/// The tensor with rows in one piece each; they may lie apart.
fn dense_rows(tensor: FlexTensor) -> FlexTensor {
    let strides = tensor.layout().strides();
    let forward = strides.iter().all(|&stride| stride >= 0);
    match strides.last() {
        Some(1) if forward => tensor,
        _ => tensor.to_contiguous(),
    }
}

/// The numbers of a dense tensor.
fn numbers(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("dense, and in f32")
}

/// The numbers of a dense tensor to write to; a copy if somebody else has them too.
fn owned(tensor: &mut FlexTensor) -> &mut [f32] {
    let (start, end) = tensor.layout().contiguous_offsets().expect("dense");
    &mut tensor.storage_mut::<f32>()[start..end]
}

/// The numbers from a tensor's first one on, and how far apart they are in each dimension.
fn view(tensor: &FlexTensor) -> (&[f32], Vec<usize>) {
    let layout = tensor.layout();
    let strides = layout.strides().iter().map(|&stride| stride as usize);
    let numbers = &tensor.storage::<f32>()[layout.start_offset()..];
    (numbers, strides.collect())
}

fn tensor(numbers: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(numbers),
        Layout::contiguous(shape),
        DType::F32,
    )
}
