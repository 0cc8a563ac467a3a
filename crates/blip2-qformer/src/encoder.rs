//! The Q-Former with its queries.

use blip2_kernels::{LayerNorm, dropout};
use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Int, Tensor};

use crate::layer::Image;
use crate::layer::{NO_TEXT_BRANCH, weight_initializer};
use crate::residual::norm;
use crate::{Layer, QFormerConfig, QFormerError, TextEmbeddings, TextMask};

/// Learned queries that read an image, and optionally text that is read with them.
#[derive(Module, Debug)]
pub struct QFormer {
    /// `[1, num_query_tokens, hidden]`
    query_tokens: Param<Tensor<3>>,
    text_embeddings: Option<TextEmbeddings>,
    layer_norm: LayerNorm,
    dropout: Dropout,
    pub(crate) layers: Vec<Layer>,
}

impl QFormerConfig {
    /// A Q-Former with random weights.
    ///
    /// # Errors
    ///
    /// If [`validate`](Self::validate) finds a wrong field.
    pub fn init(&self, device: &Device) -> Result<QFormer, QFormerError> {
        self.validate()?;
        let queries = [1, self.num_query_tokens, self.hidden_size];
        Ok(QFormer {
            query_tokens: weight_initializer(self).init(queries, device),
            text_embeddings: self
                .text
                .as_ref()
                .map(|text| TextEmbeddings::new(text, self, device)),
            layer_norm: norm(self, device),
            dropout: DropoutConfig::new(self.hidden_dropout_prob).init(),
            layers: (0..self.num_hidden_layers)
                .map(|index| Layer::new(index, self, device))
                .collect(),
        })
    }
}

impl QFormer {
    /// Cross-attends the queries to the image and returns what a language model can read, after
    /// the neck.
    ///
    /// # Shapes
    /// - `image_embeds`: `[batch, image_tokens, encoder_hidden]`, of any float type
    /// - returns: `[batch, num_query_tokens, hidden]`, of the weights' type
    ///
    /// Reference: BLIP-2, section 3.1.
    pub fn forward(&self, image_embeds: Tensor<3>) -> Tensor<3> {
        self.forward_with_taps(image_embeds, &mut |_, _| {})
    }

    /// As [`forward`](Self::forward), showing `tap` each intermediate: `embeddings` (the normed
    /// queries), then `layer.0`, `layer.1`, …
    pub fn forward_with_taps(
        &self,
        image_embeds: Tensor<3>,
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let [batch, ..] = image_embeds.dims();
        let mut hidden = self.embed_queries(batch);
        // A half-precision image encoder may stand before us.
        let image_embeds = image_embeds.cast(hidden.dtype());
        tap("embeddings", &hidden);
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward(hidden, Image::Embeds(&image_embeds));
            tap(&format!("layer.{index}"), &hidden);
        }
        hidden
    }

    /// Reads text alone: no queries, no image. Position 0 is what image-text contrast compares.
    ///
    /// # Shapes
    /// - `input_ids`: `[batch, tokens]`
    /// - `attention_mask`: `[batch, tokens]`, zero at padding
    /// - returns: `[batch, tokens, hidden]`; finite at padding, but without meaning
    ///
    /// # Panics
    ///
    /// If there is no text branch ([`text_embeddings`](Self::text_embeddings) is none), the shapes
    /// differ, or there are more tokens than positions.
    ///
    /// Reference: LAVIS `Qformer.bert(input_ids, attention_mask)`, transformers
    /// `Blip2TextModelWithProjection`.
    pub fn forward_text(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Tensor<2, Int>,
    ) -> Tensor<3> {
        self.forward_text_with_taps(input_ids, attention_mask, &mut |_, _| {})
    }

    /// As [`forward_text`](Self::forward_text), showing `tap` each intermediate: `embeddings`
    /// (normed), then `layer.0`, `layer.1`, …
    ///
    /// # Panics
    ///
    /// As [`forward_text`](Self::forward_text).
    pub fn forward_text_with_taps(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Tensor<2, Int>,
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let text = self.embed_text(input_ids, &attention_mask);
        let bias = TextMask::Bidirectional.bias(attention_mask, 0, text.dtype());
        let mut hidden = self.norm_and_drop(text);
        tap("embeddings", &hidden);
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward_text(hidden, &bias);
            tap(&format!("layer.{index}"), &hidden);
        }
        hidden
    }

    /// Reads an image with queries and text together; only the queries attend to the image.
    ///
    /// # Shapes
    /// - `input_ids`: `[batch, tokens]`
    /// - `attention_mask`: `[batch, tokens]`, zero at padding
    /// - `image_embeds`: `[batch, image_tokens, encoder_hidden]`, of any float type
    /// - returns: `[batch, num_query_tokens + tokens, hidden]`, queries first; finite at padding,
    ///   but without meaning
    ///
    /// # Panics
    ///
    /// If there is no text branch ([`text_embeddings`](Self::text_embeddings) is none), the shapes
    /// differ, or there are more tokens than positions.
    ///
    /// Reference: BLIP-2, section 3.2; transformers `Blip2ForImageTextRetrieval` with its matching
    /// head.
    pub fn forward_multimodal(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Tensor<2, Int>,
        image_embeds: Tensor<3>,
        mask: TextMask,
    ) -> Tensor<3> {
        let tap = &mut |_: &str, _: &Tensor<3>| {};
        self.forward_multimodal_with_taps(input_ids, attention_mask, image_embeds, mask, tap)
    }

    /// As [`forward_multimodal`](Self::forward_multimodal), showing `tap` each intermediate:
    /// `embeddings` (normed), then `layer.0`, `layer.1`, …
    ///
    /// # Panics
    ///
    /// As [`forward_multimodal`](Self::forward_multimodal).
    pub fn forward_multimodal_with_taps(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Tensor<2, Int>,
        image_embeds: Tensor<3>,
        mask: TextMask,
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let text = self.embed_text(input_ids, &attention_mask);
        let [batch, ..] = text.dims();
        assert_eq!(image_embeds.dims()[0], batch, "one image for each text");
        let image_embeds = image_embeds.cast(text.dtype());
        let (mut hidden, bias) = self.embed_multimodal(text, attention_mask, mask);
        let queries = self.num_query_tokens();
        tap("embeddings", &hidden);
        for (index, layer) in self.layers.iter().enumerate() {
            let image = Image::Embeds(&image_embeds);
            hidden = layer.forward_multimodal(hidden, queries, &bias, image);
            tap(&format!("layer.{index}"), &hidden);
        }
        hidden
    }

    /// The normed queries of each image. They are the same up to here, so one row is normed; dropout
    /// differs by image.
    pub(crate) fn embed_queries(&self, batch: usize) -> Tensor<3> {
        let queries = self.layer_norm.forward(self.query_tokens.val());
        dropout(queries.repeat_dim(0, batch), &self.dropout)
    }

    /// The normed queries and text, and who sees whom.
    pub(crate) fn embed_multimodal(
        &self,
        text: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        mask: TextMask,
    ) -> (Tensor<3>, Tensor<4>) {
        let [batch, ..] = text.dims();
        let bias = mask.bias(attention_mask, self.num_query_tokens(), text.dtype());
        let query_tokens = self.query_tokens.val().repeat_dim(0, batch);
        let embeddings = Tensor::cat(vec![query_tokens, text], 1);
        (self.norm_and_drop(embeddings), bias)
    }

    pub(crate) fn norm_and_drop(&self, embeddings: Tensor<3>) -> Tensor<3> {
        dropout(self.layer_norm.forward(embeddings), &self.dropout)
    }

    pub(crate) fn embed_text(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: &Tensor<2, Int>,
    ) -> Tensor<3> {
        assert_eq!(
            attention_mask.dims(),
            input_ids.dims(),
            "one mask value for each token"
        );
        self.text_embeddings
            .as_ref()
            .expect(NO_TEXT_BRANCH)
            .forward(input_ids)
    }

    /// The embeddings of the text branch, if there is one.
    pub fn text_embeddings(&self) -> Option<&TextEmbeddings> {
        self.text_embeddings.as_ref()
    }

    /// Queries an image is read with.
    pub fn num_query_tokens(&self) -> usize {
        self.query_tokens.lazy_shape()[1]
    }

    /// Channels of a query.
    pub fn hidden_size(&self) -> usize {
        self.query_tokens.lazy_shape()[2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QFormerTextConfig;

    fn tiny(cross_attention_frequency: usize) -> QFormerConfig {
        QFormerConfig {
            num_query_tokens: 40,
            hidden_size: 60,
            num_hidden_layers: 3,
            num_attention_heads: 6,
            intermediate_size: 20,
            cross_attention_frequency,
            initializer_range: 0.05,
            ..QFormerConfig::bert_base(10)
        }
    }

    fn with_text(cross_attention_frequency: usize) -> QFormerConfig {
        QFormerConfig {
            text: Some(QFormerTextConfig {
                vocab_size: 20,
                max_position_embeddings: 9,
                pad_token_id: 0,
            }),
            ..tiny(cross_attention_frequency)
        }
    }

    #[test]
    fn counted_parameters_are_those_of_the_module() {
        for frequency in 1..=4 {
            let config = tiny(frequency);
            let module = config.init(&Device::default()).unwrap();
            assert_eq!(module.num_params(), config.num_params());
            let crossing = module.layers.iter().filter(|layer| layer.crosses()).count();
            assert_eq!(crossing, [3, 2, 1, 1][frequency - 1]);
            let config = with_text(frequency);
            let module = config.init(&Device::default()).unwrap();
            assert_eq!(module.num_params(), config.num_params());
        }
    }

    #[test]
    fn initial_queries_have_the_standard_deviation_of_the_config() {
        let module = tiny(2).init(&Device::default()).unwrap();
        let std = module.query_tokens.val().square().mean().sqrt();
        let std = std.into_scalar::<f32>();
        // 2400 draws: the standard error is 1.4 %.
        assert!((std / 0.05 - 1.0).abs() < 0.07, "{std}");
        assert_eq!((module.num_query_tokens(), module.hidden_size()), (40, 60));
    }

    #[test]
    fn an_image_does_not_see_the_others_of_its_batch() {
        let device = Device::default();
        let module = tiny(2).init(&device).unwrap();
        let distribution = burn::tensor::Distribution::Normal(0.0, 1.0);
        let images = Tensor::<3>::random([3, 7, 10], distribution, &device);
        let together = module.forward(images.clone());
        for index in 0..3 {
            let alone = module.forward(images.clone().narrow(0, index, 1));
            let difference = (together.clone().narrow(0, index, 1) - alone).abs().max();
            // f32 products of other sizes may add in another order.
            assert!(difference.into_scalar::<f32>() < 1e-5);
        }
    }

    #[test]
    fn a_padded_text_is_read_as_if_it_were_alone() {
        let device = Device::default();
        let module = with_text(2).init(&device).unwrap();
        let ids = Tensor::<2, Int>::from_data([[7, 8, 9, 7, 3], [4, 5, 6, 0, 0]], &device);
        let mask = Tensor::<2, Int>::from_data([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], &device);
        let distribution = burn::tensor::Distribution::Normal(0.0, 1.0);
        let images = Tensor::<3>::random([2, 7, 10], distribution, &device);
        let passes: [&dyn Fn(_, _, _) -> _; 3] = [
            &|ids, mask, _| module.forward_text(ids, mask),
            &|ids, mask, images| {
                module.forward_multimodal(ids, mask, images, TextMask::Bidirectional)
            },
            &|ids, mask, images| {
                module.forward_multimodal(ids, mask, images, TextMask::MultimodalCausal)
            },
        ];
        for (pass, queries) in passes.iter().zip([0, 40, 40]) {
            let together = pass(ids.clone(), mask.clone(), images.clone());
            for (row, tokens) in [(0, 5), (1, 3)] {
                let cut = |all: &Tensor<2, Int>| all.clone().slice([row..row + 1, 0..tokens]);
                let alone = pass(cut(&ids), cut(&mask), images.clone().narrow(0, row, 1));
                let all = together.clone().slice([row..row + 1, 0..queries + tokens]);
                let difference = (all - alone).abs().max().into_scalar::<f32>();
                // f32 products of other sizes may add in another order.
                assert!(difference < 1e-5, "{difference}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "no text branch")]
    fn a_captioner_reads_no_text() {
        let device = Device::default();
        let module = tiny(2).init(&device).unwrap();
        assert!(module.text_embeddings().is_none());
        let ids = Tensor::<2, Int>::ones([1, 3], &device);
        module.forward_text(ids.clone(), ids);
    }

    #[test]
    #[should_panic(expected = "one mask value for each token")]
    fn a_mask_of_another_length_is_refused() {
        let device = Device::default();
        let module = with_text(2).init(&device).unwrap();
        let ids = Tensor::<2, Int>::ones([1, 3], &device);
        module.forward_text(ids.clone(), ids.narrow(1, 0, 2));
    }
}
