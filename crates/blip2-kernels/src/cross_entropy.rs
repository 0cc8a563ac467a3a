//! Caption cross-entropy without logits of all tokens at once.

use std::ops::Range;

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use crate::linear::affine;
use crate::{Activation, tied_logits};

/// Logits that are made at once: 32 MiB in f32.
const CHUNK: usize = 1 << 23;

/// The mean cross-entropy, in nats, of `hidden · embeddingᵀ` against `ids`; `[1]`.
///
/// Forward and backward go over a few tokens at a time, so the memory that the vocabulary takes does
/// not grow with their number: the gradient for `hidden` (and for `embedding`, if it is trained) is
/// made together with the loss, while the logits of its tokens are at hand, and autodiff keeps that
/// alone. Logits and loss are in the precision of `hidden`.
///
/// # Shapes
/// - `hidden`: `[tokens, width]`
/// - `embedding`: `[vocabulary, width]`, in any precision
/// - `ids`: one for each token, below `vocabulary`
///
/// # Panics
///
/// If there is no token, or `ids` are not as many as `hidden` has rows.
pub fn tied_cross_entropy(hidden: Tensor<2>, embedding: Tensor<2>, ids: &[i64]) -> Tensor<1> {
    let chunk = tokens_at_once(&embedding);
    in_chunks(hidden, embedding, None, ids, chunk)
}

/// As [`tied_cross_entropy`] of `hidden · embeddingᵀ + bias`, with `label_smoothing`: so much of each
/// target is spread over the whole vocabulary.
///
/// # Shapes
/// - `bias`: `[vocabulary]`
///
/// # Panics
///
/// As [`tied_cross_entropy`].
///
/// Reference: torch's `cross_entropy(…, label_smoothing)`, which LAVIS's Q-Former has at 0.1.
pub fn smoothed_cross_entropy(
    hidden: Tensor<2>,
    embedding: Tensor<2>,
    bias: Tensor<1>,
    ids: &[i64],
    label_smoothing: f64,
) -> Tensor<1> {
    let chunk = tokens_at_once(&embedding);
    let (words, bias_of) = (embedding.clone(), bias.clone());
    let sharp = in_chunks(hidden.clone(), embedding, Some(bias), ids, chunk);
    if label_smoothing == 0.0 {
        return sharp;
    }
    // The smoothed loss exceeds the sharp one by the smoothing times (the target's logit less the
    // mean of all), for which no logits are needed.
    let at = TensorData::new(ids.to_vec(), [ids.len()]);
    let at = Tensor::<1, Int>::from_data(at, &hidden.device().inner());
    let above = words.clone().select(0, at.clone()) - words.mean_dim(0);
    let above_bias = bias_of.clone().select(0, at) - bias_of.mean();
    let excess = (hidden * above).sum_dim(1).squeeze_dim::<1>(1) + above_bias;
    sharp + excess.mean().mul_scalar(label_smoothing)
}

fn tokens_at_once(embedding: &Tensor<2>) -> usize {
    let [vocabulary, _] = embedding.dims();
    (CHUNK / vocabulary.max(1)).max(1)
}

fn in_chunks(
    hidden: Tensor<2>,
    embedding: Tensor<2>,
    bias: Option<Tensor<1>>,
    ids: &[i64],
    chunk: usize,
) -> Tensor<1> {
    let [tokens, _] = hidden.dims();
    assert_eq!(tokens, ids.len(), "one id for each token");
    assert!(tokens > 0, "the mean of no token");
    let head = Head {
        hidden: hidden.clone().inner(),
        embedding: embedding.clone().inner(),
        bias: bias.clone().map(Tensor::inner),
        ids,
    };
    let mut sum: Option<Tensor<1>> = None;
    let mut hidden_grads = Vec::new();
    let mut embedding_grad: Option<Tensor<2>> = None;
    let mut bias_grad: Option<Tensor<1>> = None;
    let bias = bias.filter(Tensor::is_autodiff);
    for start in (0..tokens).step_by(chunk) {
        let rows = start..(start + chunk).min(tokens);
        let (loss, slopes) = head.loss(rows.clone());
        sum = Some(add(sum, loss));
        if embedding.is_autodiff() {
            let grad = slopes.clone().transpose().matmul(head.hidden(rows));
            embedding_grad = Some(add(embedding_grad, grad));
        }
        if bias.is_some() {
            let grad = slopes.clone().sum_dim(0).squeeze_dim(0);
            bias_grad = Some(add(bias_grad, grad));
        }
        if hidden.is_autodiff() {
            hidden_grads.push(head.hidden_grad(slopes));
        }
    }
    let mut loss = sum.expect("there is a token");
    if !hidden_grads.is_empty() {
        loss = with_gradient(loss, hidden, Tensor::cat(hidden_grads, 0));
    }
    if let Some(grad) = embedding_grad {
        loss = with_gradient(loss, embedding, grad);
    }
    if let (Some(bias), Some(grad)) = (bias, bias_grad) {
        loss = with_gradient(loss, bias, grad);
    }
    loss.div_scalar(tokens as f64)
}

fn add<const D: usize>(sum: Option<Tensor<D>>, term: Tensor<D>) -> Tensor<D> {
    match sum {
        Some(sum) => sum + term,
        None => term,
    }
}

/// `value`, with the gradient `grad` for `x`: a linear function of `x` that is 0 here is added to it.
///
/// For gradients that were found outside of autodiff, which then keeps nothing else.
fn with_gradient<const D: usize>(value: Tensor<1>, x: Tensor<D>, grad: Tensor<D>) -> Tensor<1> {
    let slope = (x.cast(grad.dtype()) * grad).sum();
    value + (slope.clone() - slope.detach())
}

/// The output layer, outside of autodiff.
struct Head<'a> {
    hidden: Tensor<2>,
    embedding: Tensor<2>,
    bias: Option<Tensor<1>>,
    ids: &'a [i64],
}

impl Head<'_> {
    fn hidden(&self, rows: Range<usize>) -> Tensor<2> {
        let [_, width] = self.hidden.dims();
        self.hidden.clone().slice([rows, 0..width])
    }

    /// The summed cross-entropy of `rows`, and its slopes for their logits, `[rows, vocabulary]`:
    /// the probabilities, less 1 for the id that is scored.
    fn loss(&self, rows: Range<usize>) -> (Tensor<1>, Tensor<2>) {
        let mut logits = tied_logits(self.hidden(rows.clone()), self.embedding.clone());
        if let Some(bias) = &self.bias {
            logits = logits + bias.clone().unsqueeze();
        }
        let ids = &self.ids[rows];
        #[cfg(feature = "flex")]
        if crate::fused::takes(&logits) {
            return crate::fused::cross_entropy(logits, ids);
        }
        let ids = TensorData::new(ids.to_vec(), [ids.len(), 1]);
        let ids = Tensor::<2, Int>::from_data(ids, &logits.device());
        let shifted = logits.clone() - logits.max_dim(1);
        let scored = shifted.clone().gather(1, ids.clone());
        let exponentials = shifted.exp();
        let total = exponentials.clone().sum_dim(1);
        let loss = (total.clone().log() - scored.clone()).sum();
        let one = scored.ones_like().neg();
        let slopes = (exponentials / total).scatter(1, ids, one, IndexingUpdateOp::Add);
        (loss, slopes)
    }

    /// d(sum) / d(hidden): the expected embedding less that of the id.
    fn hidden_grad(&self, slopes: Tensor<2>) -> Tensor<2> {
        let embedding = self.embedding.clone();
        affine(slopes.unsqueeze(), embedding, None, Activation::None).squeeze_dim(0)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::loss::CrossEntropyLossConfig;
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{Device, Distribution, FloatDType, Tolerance};
    use proptest::prelude::*;

    use super::*;

    fn random(shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
    }

    /// The same from all logits at once, by Burn's own log-softmax and autodiff.
    fn whole(hidden: Tensor<2>, embedding: Tensor<2>, ids: &[i64]) -> Tensor<1> {
        let device = hidden.device().inner();
        let shape = [ids.len(), 1];
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), shape), &device);
        let logits = hidden.matmul(embedding.transpose());
        log_softmax(logits, 1).gather(1, ids).mean().neg()
    }

    /// Three times `loss`, and its gradients for `hidden` and `embedding`.
    fn differentiate(
        hidden: &Tensor<2>,
        embedding: &Tensor<2>,
        loss: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<1>,
    ) -> [TensorData; 3] {
        let (hidden, embedding) = (
            hidden.clone().require_grad(),
            embedding.clone().require_grad(),
        );
        let loss = loss(hidden.clone(), embedding.clone()).mul_scalar(3.0);
        let grads = loss.backward();
        [
            loss.into_data(),
            hidden.grad(&grads).unwrap().into_data(),
            embedding.grad(&grads).unwrap().into_data(),
        ]
    }

    proptest! {
        #[test]
        fn chunks_give_the_loss_and_gradients_of_all_logits_at_once(
            ids in proptest::collection::vec(0i64..11, 1..20), chunk in 1usize..25
        ) {
            let device = Device::default().autodiff();
            let (hidden, embedding) = (random([ids.len(), 6], &device), random([11, 6], &device));
            let expected = differentiate(&hidden, &embedding, |x, weight| whole(x, weight, &ids));
            let chunked = differentiate(&hidden, &embedding, |x, weight| {
                in_chunks(x, weight, None, &ids, chunk)
            });
            for (chunked, expected) in chunked.iter().zip(&expected) {
                // Sums of at most 20 terms near 1, in another order.
                chunked.assert_approx_eq::<f32>(expected, Tolerance::absolute(1e-5));
            }
        }
    }

    #[test]
    fn bias_and_smoothing_give_burns_loss_and_gradients() {
        let device = Device::default().autodiff();
        let (hidden, embedding) = (random([7, 6], &device), random([11, 6], &device));
        let bias = random([1, 11], &device).squeeze_dim::<1>(0).require_grad();
        let ids = [0, 3, 10, 3, 7, 1, 5];
        let expected = |hidden: Tensor<2>, embedding: Tensor<2>| {
            let logits = hidden.matmul(embedding.transpose()) + bias.clone().unsqueeze();
            let targets = Tensor::<1, Int>::from_data(ids, &device.clone().inner());
            CrossEntropyLossConfig::new()
                .with_smoothing(Some(0.1))
                .init(&device)
                .forward(logits, targets)
        };
        let smoothed = |hidden: Tensor<2>, embedding: Tensor<2>| {
            smoothed_cross_entropy(hidden, embedding, bias.clone(), &ids, 0.1)
        };
        let pairs = differentiate(&hidden, &embedding, expected)
            .into_iter()
            .zip(differentiate(&hidden, &embedding, smoothed));
        for (expected, smoothed) in pairs {
            // Sums of eleven terms near 1, in another order.
            smoothed.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
        }
        let bias_gradient = |loss: Tensor<1>| bias.grad(&loss.backward()).unwrap().into_data();
        let smoothed = bias_gradient(smoothed(hidden.clone(), embedding.clone()));
        let expected = bias_gradient(expected(hidden, embedding));
        smoothed.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
    }

    #[test]
    fn the_loss_is_the_mean_over_tokens() {
        let device = Device::default();
        let logits = Tensor::<2>::from_data([[0.0, 0.0], [0.0, 3f32.ln()]], &device);
        let loss: f32 = tied_cross_entropy(logits, Tensor::eye(2, &device), &[0, 1]).into_scalar();
        let expected = (2f32.ln() + (4.0f32 / 3.0).ln()) / 2.0;
        assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
    }

    #[test]
    fn a_frozen_embedding_in_half_precision_passes_gradients() {
        let device = Device::default();
        let embedding = random([2100, 1000], &device).mul_scalar(0.02);
        let embedding = embedding.cast(FloatDType::BF16);
        let ids = [3, 2099, 0];
        let hidden = random([3, 1000], &device);
        let gradient = |embedding: Tensor<2>, loss: fn(_, _, &[i64]) -> Tensor<1>| {
            let hidden = Tensor::<2>::from_inner(hidden.clone()).require_grad();
            let loss = loss(hidden.clone(), embedding, &ids);
            let grads = loss.backward();
            (loss.into_data(), hidden.grad(&grads).unwrap().into_data())
        };
        let (loss, grad) = gradient(embedding.clone(), tied_cross_entropy);
        let (whole_loss, whole_grad) = gradient(embedding.cast(FloatDType::F32), whole);
        loss.assert_approx_eq::<f32>(&whole_loss, Tolerance::absolute(1e-5));
        grad.assert_approx_eq::<f32>(&whole_grad, Tolerance::absolute(1e-6));
    }

    #[test]
    fn large_logits_do_not_overflow_and_nothing_is_kept_without_autodiff() {
        let device = Device::default();
        let hidden = Tensor::<2>::from_data([[1000.0, 0.0]], &device);
        let embedding = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 1.0]], &device);
        let loss = tied_cross_entropy(hidden, embedding, &[1]);
        assert!(!loss.is_autodiff());
        assert_eq!(loss.into_scalar::<f32>(), 1000.0);
    }
}
