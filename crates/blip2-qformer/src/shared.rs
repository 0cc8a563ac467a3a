//! Passes over one batch of images that share what they read of it, as the three objectives of
//! BLIP-2's first stage do.

use burn::tensor::{Int, Tensor};

use crate::attention::KeyValue;
use crate::layer::Image;
use crate::{QFormer, TextMask};

/// What every cross-attention reads of a batch of images: its keys and values, layer by layer.
///
/// Making them is most of a pass where images have more tokens than there are queries.
#[derive(Debug, Clone)]
pub struct ImageKeys {
    layers: Vec<Option<KeyValue>>,
    batch: usize,
}

impl ImageKeys {
    /// The images at `indices` of the batch, which may repeat.
    pub fn select(&self, indices: &Tensor<1, Int>) -> Self {
        let select = |keys: &KeyValue| keys.select(indices.clone());
        Self {
            layers: self
                .layers
                .iter()
                .map(|keys| keys.as_ref().map(select))
                .collect(),
            batch: indices.dims()[0],
        }
    }

    fn of_layer(&self, index: usize) -> Image<'_> {
        Image::Keys(self.layers[index].as_ref())
    }
}

/// What entered each layer while the queries read their images: `[batch, queries, hidden]`.
#[derive(Debug, Clone)]
pub struct QueryStates {
    layers: Vec<Tensor<3>>,
}

impl QFormer {
    /// Keys and values of images for passes that share them.
    ///
    /// # Shapes
    /// - `image_embeds`: `[batch, image_tokens, encoder_hidden]`
    pub fn image_keys(&self, image_embeds: &Tensor<3>) -> ImageKeys {
        let of_layer = |layer: &crate::Layer| layer.image_keys(image_embeds);
        ImageKeys {
            layers: self.layers.iter().map(of_layer).collect(),
            batch: image_embeds.dims()[0],
        }
    }

    /// As [`forward`](Self::forward); returns what [`forward_text_after`](Self::forward_text_after)
    /// needs besides.
    pub fn forward_keys(&self, image: &ImageKeys) -> (Tensor<3>, QueryStates) {
        let mut hidden = self.embed_queries(image.batch);
        let mut layers = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            layers.push(hidden.clone());
            hidden = layer.forward(hidden, image.of_layer(index));
        }
        (hidden, QueryStates { layers })
    }

    /// As [`forward_multimodal`](Self::forward_multimodal), all seeing all.
    ///
    /// # Panics
    ///
    /// If there is no text branch, the shapes differ, or there are more tokens than positions.
    pub fn forward_multimodal_keys(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Tensor<2, Int>,
        image: &ImageKeys,
    ) -> Tensor<3> {
        let text = self.embed_text(input_ids, &attention_mask);
        assert_eq!(text.dims()[0], image.batch, "one image for each text");
        let queries = self.num_query_tokens();
        let (mut hidden, bias) =
            self.embed_multimodal(text, attention_mask, TextMask::Bidirectional);
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward_multimodal(hidden, queries, &bias, image.of_layer(index));
        }
        hidden
    }

    /// The text's part of [`forward_multimodal`](Self::forward_multimodal) with
    /// [`TextMask::MultimodalCausal`], after queries that do not see it and were read already.
    ///
    /// # Shapes
    /// - `input_ids`: `[batch, tokens]`
    /// - `attention_mask`: `[batch, tokens]`, zero at padding
    /// - returns: `[batch, tokens, hidden]`
    ///
    /// # Panics
    ///
    /// As [`forward_multimodal_keys`](Self::forward_multimodal_keys).
    ///
    /// Reference: LAVIS `Blip2Qformer.forward`, which hands the queries' keys on as
    /// `past_key_values`.
    pub fn forward_text_after(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Tensor<2, Int>,
        queries: &QueryStates,
    ) -> Tensor<3> {
        let text = self.embed_text(input_ids, &attention_mask);
        let [_, tokens, _] = text.dims();
        let before = self.num_query_tokens();
        let bias = TextMask::MultimodalCausal.bias(attention_mask, before, text.dtype());
        let bias = bias.narrow(2, before, tokens);
        let mut hidden = self.norm_and_drop(text);
        for (layer, queries) in self.layers.iter().zip(&queries.layers) {
            hidden = layer.forward_text_after(hidden, queries.clone(), &bias);
        }
        hidden
    }
}
