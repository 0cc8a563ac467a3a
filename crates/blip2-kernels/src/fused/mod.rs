//! From tensors to the operations of [`flex`](crate::flex).

use burn::backend::{
    BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, Flex,
};
use burn::tensor::quantization::{BlockSize, QuantValue};
use burn::tensor::{DType, FloatDType, Tensor, TensorData};

use crate::flex::{Kernels, nibbles};
use crate::{Activation, AdamWStep, DropoutSeed, Products};

/// Whether the operations take `x`: f32 on `flex`.
pub fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && crate::is_flex(&x.device())
}

/// Whether they take `weight`. In half precision it must be frozen: there is no f32 to learn in.
pub fn takes_weight(weight: &Tensor<2>) -> bool {
    match weight.dtype() {
        DType::F32 => true,
        DType::F16 | DType::BF16 => !weight.is_autodiff(),
        _ => false,
    }
}

/// Whether [`linear`] takes `weight`, which is quantized: in eight bits, with one scale for all or for
/// each piece of a row; or in four as [`packed`] makes them.
pub fn takes_quantized(weight: &Tensor<2>) -> bool {
    let DType::QFloat(scheme) = weight.dtype() else {
        return false;
    };
    if nibbles::is_packed(&scheme) {
        return true;
    }
    let whole_numbers = matches!(scheme.value, QuantValue::Q8S | QuantValue::Q8F);
    let in_rows = |block: BlockSize| block.to_dim_vec(2)[0] == 1;
    whole_numbers && scheme.num_levels() == 1 && scheme.block_size().is_none_or(in_rows)
}

/// `weight`, which is on `flex`, in four bits; none if its rows can't be cut in blocks.
pub fn packed<const D: usize>(weight: &Tensor<D>) -> Option<Tensor<D>> {
    let numbers = weight.clone().cast(FloatDType::F32).into_data();
    let packed = nibbles::packed(numbers.as_slice::<f32>().ok()?, &weight.dims())?;
    let tensor = DispatchTensor {
        kind: DispatchTensorKind::Flex(BackendTensor::Quantized(packed)),
        autodiff: DispatchAutodiffContext::Disabled,
    };
    Some(Tensor::from_dispatch(tensor))
}

/// What the four bits of `weight` stand for; none if it is not in four bits.
pub fn unpacked<const D: usize>(weight: &Tensor<D>) -> Option<Tensor<D>> {
    let DispatchTensorKind::Flex(BackendTensor::<Flex>::Quantized(packed)) =
        weight.clone().into_dispatch().kind
    else {
        return None;
    };
    let nibbles = nibbles::Nibbles::of(&packed)?;
    let mut numbers = vec![0.0; nibbles.len()];
    nibbles.widen(0, &mut numbers);
    let data = TensorData::new(numbers, weight.dims());
    Some(Tensor::from_data(data, &weight.device()))
}

/// See [`crate::linear`].
pub fn linear(
    x: Tensor<3>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    activation: Activation,
) -> Tensor<3> {
    let [batch, tokens, inputs] = x.dims();
    let [_, outputs] = weight.dims();
    let bias = match bias {
        Some(bias) => bias.cast(x.dtype()),
        None => Tensor::zeros([outputs], &weight.device()),
    };
    let quantized = matches!(weight.dtype(), DType::QFloat(_));
    let x = x.reshape([batch * tokens, inputs]).into_dispatch();
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    let products = Products::current();
    let out = match quantized {
        true => Dispatch::fused_quantized_linear(x, weight, bias, activation, products),
        false => Dispatch::fused_linear(x, weight, bias, activation, products),
    };
    Tensor::<2>::from_dispatch(out).reshape([batch, tokens, outputs])
}

/// See [`crate::tied_logits`].
pub fn logits(x: Tensor<2>, embedding: Tensor<2>) -> Tensor<2> {
    let out = Dispatch::fused_logits(
        x.into_dispatch(),
        embedding.into_dispatch(),
        Products::current(),
    );
    Tensor::from_dispatch(out)
}

/// See [`crate::attention()`].
pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    bias: Option<&Tensor<4>>,
    heads: usize,
    dropout: Option<DropoutSeed>,
) -> Tensor<3> {
    let bias = match bias {
        Some(bias) => bias.clone(),
        None => Tensor::zeros([0, 1, 1, 1], &query.device().inner()),
    };
    let out = Dispatch::fused_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        bias.into_dispatch(),
        heads,
        dropout,
        Products::current(),
    );
    Tensor::from_dispatch(out)
}

/// See [`crate::LayerNorm`].
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let out = Dispatch::fused_layer_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    );
    Tensor::from_dispatch(out)
}

/// See [`crate::dropout()`].
pub fn dropout<const D: usize>(x: Tensor<D>, dropout: DropoutSeed) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_dropout(x.into_dispatch(), dropout))
}

/// The summed cross-entropy of `logits` against `ids`, and its slopes for the logits.
pub fn cross_entropy(logits: Tensor<2>, ids: &[i64]) -> (Tensor<1>, Tensor<2>) {
    let ids = ids.iter().map(|&id| id as usize).collect();
    let (loss, slopes) = Dispatch::fused_cross_entropy(logits.into_dispatch(), ids);
    (Tensor::from_dispatch(loss), Tensor::from_dispatch(slopes))
}

/// See [`AdamWStep::apply`].
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    step: AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let (weight, first, second) = Dispatch::fused_adamw(
        weight.into_dispatch(),
        grad.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        step,
    );
    let moments = [Tensor::from_dispatch(first), Tensor::from_dispatch(second)];
    (Tensor::from_dispatch(weight), moments)
}

/// See [`crate::squared_sum`].
pub fn squared_sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::fused_squared_sum(x.into_dispatch()))
}

#[cfg(test)]
mod tests;
