//! What stage 1 puts on the Q-Former: projections for the contrast, matching, words.

use blip2_kernels::{Activation, LayerNorm, linear, smoothed_cross_entropy};
use blip2_qformer::QFormerConfig;
use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// The dimensions of [`Heads`].
#[derive(Debug, Clone, PartialEq)]
pub struct HeadsConfig {
    /// Channels in which images and texts are compared.
    pub embed_dim: usize,
    /// The first temperature.
    pub temperature: f64,
    /// Whether there is a [`LanguageHead`]: transformers' checkpoints have none.
    pub language: bool,
}

/// All heads of stage 1. Field names are LAVIS's.
#[derive(Module, Debug)]
pub struct Heads {
    /// From a query to the space of the contrast.
    pub vision_proj: Linear,
    /// From a text's first token to the space of the contrast.
    pub text_proj: Linear,
    /// Whether image and text match: two logits, of no and yes.
    pub itm_head: Linear,
    /// The temperature of the contrast: `[1]`.
    pub temp: Param<Tensor<1>>,
    /// Predicts words.
    pub cls: Option<LanguageHead>,
}

impl HeadsConfig {
    /// New heads: torch's default for linear layers, which LAVIS keeps, and BERT's for words.
    pub fn init(&self, qformer: &QFormerConfig, device: &Device) -> Heads {
        let width = qformer.hidden_size;
        let projection = |outputs| LinearConfig::new(width, outputs).init(device);
        let vocabulary = qformer.text.as_ref().map_or(0, |text| text.vocab_size);
        Heads {
            vision_proj: projection(self.embed_dim),
            text_proj: projection(self.embed_dim),
            itm_head: projection(2),
            temp: Initializer::Constant {
                value: self.temperature,
            }
            .init([1], device),
            cls: self
                .language
                .then(|| LanguageHead::new(vocabulary, qformer, device)),
        }
    }
}

/// BERT's head over the words, whose matrix is the word embedding.
///
/// Reference: transformers `BertLMPredictionHead`, LAVIS `Qformer.cls.predictions`.
#[derive(Module, Debug)]
pub struct LanguageHead {
    dense: Linear,
    layer_norm: LayerNorm,
    bias: Param<Tensor<1>>,
}

impl LanguageHead {
    fn new(vocabulary: usize, qformer: &QFormerConfig, device: &Device) -> Self {
        let width = qformer.hidden_size;
        let mut dense = LinearConfig::new(width, width)
            .with_bias(false)
            .with_initializer(Initializer::Normal {
                mean: 0.0,
                std: qformer.initializer_range,
            })
            .init(device);
        dense.bias = Some(Initializer::Zeros.init([width], device));
        Self {
            dense,
            layer_norm: LayerNorm::new(width, qformer.layer_norm_eps, device),
            bias: Initializer::Zeros.init([vocabulary], device),
        }
    }

    /// The mean cross-entropy of the words that follow, with label smoothing.
    ///
    /// # Shapes
    /// - `hidden`: `[tokens, hidden]`, what predicts
    /// - `words`: the word embedding, `[vocabulary, hidden]`
    /// - `ids`: what must be predicted, one for each token
    pub fn loss(
        &self,
        hidden: Tensor<2>,
        words: Tensor<2>,
        ids: &[i64],
        label_smoothing: f64,
    ) -> Tensor<1> {
        let hidden = linear(hidden.unsqueeze(), &self.dense, Activation::Gelu);
        let hidden = self.layer_norm.forward(hidden).squeeze_dim(0);
        smoothed_cross_entropy(hidden, words, self.bias.val(), ids, label_smoothing)
    }
}
