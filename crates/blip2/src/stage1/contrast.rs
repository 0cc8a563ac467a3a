//! Image–text contrast.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

/// `x` with length 1 along its last dimension, as torch's `normalize` has it.
pub(super) fn normalized<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let length = x.clone().square().sum_dim(D - 1).sqrt().clamp_min(1e-12);
    x / length
}

/// How alike each image and each text are: the cosine of the query that is most like the text.
///
/// # Shapes
/// - `image_features`: `[images, queries, embed_dim]`, each of length 1
/// - `text_features`: `[texts, embed_dim]`, each of length 1
/// - returns: `[images, texts]`
///
/// Reference: BLIP-2, section 3.1, image-text contrastive learning.
pub(super) fn similarity(image_features: Tensor<3>, text_features: Tensor<2>) -> Tensor<2> {
    let [images, queries, width] = image_features.dims();
    let [texts, _] = text_features.dims();
    let flat = image_features.reshape([images * queries, width]);
    let each = flat.matmul(text_features.transpose());
    each.reshape([images, queries, texts])
        .max_dim(1)
        .squeeze_dim(1)
}

/// The mean of both directions' cross-entropies.
///
/// # Shapes
/// - `logits`: `[images, texts]`, similarities over the temperature
/// - `targets`: row-major `[images, texts]`, symmetric; each row sums to 1
pub(super) fn loss(logits: Tensor<2>, targets: Vec<f32>, device: &Device) -> Tensor<1> {
    let shape = logits.dims();
    let targets = Tensor::<2>::from_data(TensorData::new(targets, shape), device);
    let one_way = |logits: Tensor<2>| {
        (log_softmax(logits, 1) * targets.clone())
            .sum_dim(1)
            .mean()
            .neg()
    };
    (one_way(logits.clone()) + one_way(logits.transpose())).div_scalar(2.0)
}

/// What each image's distribution over the texts should be: even over those that are its own, with
/// `smoothing` spread over all.
///
/// `same(i, j)` says whether pair j belongs to the image of pair i.
pub(super) fn targets(
    pairs: usize,
    same: impl Fn(usize, usize) -> bool,
    smoothing: f64,
) -> Vec<f32> {
    let mut targets = Vec::with_capacity(pairs * pairs);
    for image in 0..pairs {
        let own = (0..pairs).filter(|&text| same(image, text)).count().max(1);
        targets.extend((0..pairs).map(|text| {
            let right = f64::from(u8::from(same(image, text))) / own as f64;
            ((1.0 - smoothing) * right + smoothing / pairs as f64) as f32
        }));
    }
    targets
}
