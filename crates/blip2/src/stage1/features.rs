//! What stage 1 is used for: features of images and texts, and how well they go together.

use blip2_data::ImageInput;
use blip2_kernels::{Activation, linear};
use burn::tensor::{Int, Tensor, TensorData, activation::softmax};

use super::Blip2Qformer;
use super::contrast::{normalized, similarity};
use super::text::{First, Texts};
use crate::Blip2Error;

/// What the model knows of a batch of images.
#[derive(Debug, Clone)]
pub struct ImageFeatures {
    /// The image encoder's output after `ln_vision`: `[batch, image_tokens, vision_width]`; what
    /// [`Blip2Qformer::matching`] reads.
    pub image_embeds: Tensor<3>,
    /// For comparison with texts, each of length 1: `[batch, num_query_tokens, embed_dim]`.
    pub features: Tensor<3>,
}

impl Blip2Qformer {
    /// Features of images.
    ///
    /// # Shapes
    /// - `images`: as in [`image_embeds`](Self::image_embeds)
    ///
    /// Reference: LAVIS `extract_features(mode="image")`, transformers
    /// `Blip2ForImageTextRetrieval`.
    pub fn image_features(&self, images: impl Into<ImageInput>) -> ImageFeatures {
        let image_embeds = self.normed_embeds(images);
        let query_output = self.multimodal_backbone.forward(image_embeds.clone());
        ImageFeatures {
            image_embeds,
            features: self.project_queries(query_output),
        }
    }

    /// Features of texts, each of length 1: `[texts, embed_dim]`.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses a text.
    pub fn text_features(&self, texts: &[&str]) -> Result<Tensor<2>, Blip2Error> {
        let device = self.heads.temp.val().device().inner();
        let (ids, mask) = self.texts(texts)?.all(First::Cls, &device);
        Ok(self.project_text(self.multimodal_backbone.forward_text(ids, mask)))
    }

    /// Cosines of images and texts (ITC): `[images, texts]`, each that of the most similar query.
    ///
    /// # Shapes
    /// - `image_features`: [`ImageFeatures::features`]
    /// - `text_features`: as [`text_features`](Self::text_features) gives them
    pub fn similarity(image_features: Tensor<3>, text_features: Tensor<2>) -> Tensor<2> {
        similarity(image_features, text_features)
    }

    /// Whether pairs of image and text match (ITM): logits of no and yes, `[pairs, 2]`.
    ///
    /// # Shapes
    /// - `image_embeds`: [`ImageFeatures::image_embeds`]
    /// - `pairs`: (row of `image_embeds`, index into `texts`)
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses a text.
    ///
    /// Reference: LAVIS `compute_itm`, transformers `Blip2ForImageTextRetrieval` with
    /// `use_image_text_matching_head`.
    pub fn matching(
        &self,
        image_embeds: &Tensor<3>,
        texts: &[&str],
        pairs: &[(usize, usize)],
    ) -> Result<Tensor<2>, Blip2Error> {
        let device = image_embeds.device();
        let keys = self.multimodal_backbone.image_keys(image_embeds);
        let images: Vec<i64> = pairs.iter().map(|&(image, _)| image as i64).collect();
        let images = Tensor::<1, Int>::from_data(TensorData::new(images, [pairs.len()]), &device);
        let of_pairs = pairs.iter().map(|&(_, text)| text);
        let (ids, mask) = self.texts(texts)?.tensors(of_pairs, First::Cls, &device);
        let hidden =
            self.multimodal_backbone
                .forward_multimodal_keys(ids, mask, &keys.select(&images));
        Ok(self.matching_logits(hidden))
    }

    fn texts(&self, texts: &[&str]) -> Result<Texts, Blip2Error> {
        let settings = &self.settings;
        Texts::new(
            texts.iter().copied(),
            &settings.tokenizer,
            settings.max_txt_len,
        )
    }

    pub(super) fn project_queries(&self, query_output: Tensor<3>) -> Tensor<3> {
        normalized(linear(
            query_output,
            &self.heads.vision_proj,
            Activation::None,
        ))
    }

    /// Of a text, its first token is compared.
    pub(super) fn project_text(&self, hidden: Tensor<3>) -> Tensor<2> {
        let first = linear(
            hidden.narrow(1, 0, 1),
            &self.heads.text_proj,
            Activation::None,
        );
        normalized(first.squeeze_dim::<2>(1))
    }

    /// The mean over the queries of what each says.
    pub(super) fn matching_logits(&self, hidden: Tensor<3>) -> Tensor<2> {
        let queries = hidden.narrow(1, 0, self.multimodal_backbone.num_query_tokens());
        let each = linear(queries, &self.heads.itm_head, Activation::None);
        each.mean_dim(1).squeeze_dim(1)
    }

    /// The words' embedding, which reads and writes.
    pub(super) fn word_embedding(&self) -> Tensor<2> {
        self.multimodal_backbone
            .text_embeddings()
            .expect("a model of stage 1 has a text side")
            .words()
    }
}

/// The probability of yes in logits of no and yes: `[pairs, 2]` to `[pairs]`.
pub fn match_probability(logits: Tensor<2>) -> Tensor<1> {
    softmax(logits, 1).narrow(1, 1, 1).squeeze_dim(1)
}
