//! The three losses of stage 1.

use blip2_data::{CaptionSample, ImageInput};
use blip2_qformer::{ImageKeys, QueryStates};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use super::contrast::{self, similarity};
use super::negatives::{HardNegatives, Negatives};
use super::text::{First, Texts};
use super::{Blip2Qformer, SameImage};
use crate::Blip2Error;

/// What [`Blip2Qformer::loss`] returns: named losses, `[1]` each, in nats.
#[derive(Debug, Clone)]
pub struct Stage1Losses {
    /// The sum of the others.
    pub loss: Tensor<1>,
    /// Image–text contrast, the mean over pairs and directions.
    pub loss_itc: Tensor<1>,
    /// Image–text matching, the mean over right and wrong pairs.
    pub loss_itm: Tensor<1>,
    /// Image-grounded text generation, the mean over words.
    pub loss_lm: Tensor<1>,
    /// Pairs of the batch.
    pub pairs: usize,
}

impl Blip2Qformer {
    /// The losses of a batch of pairs. One reading of each image serves all three: its keys and
    /// values are made once, and the generated text looks back at the queries of the contrast.
    ///
    /// # Shapes
    /// - `images`: as in [`image_embeds`](Self::image_embeds), one for each sample
    ///
    /// # Errors
    ///
    /// A sample without text; a model without a language head.
    ///
    /// Reference: BLIP-2, section 3.2; LAVIS `Blip2Qformer.forward`.
    pub fn loss(
        &self,
        images: impl Into<ImageInput>,
        samples: &[CaptionSample],
        negatives: &Negatives,
    ) -> Result<Stage1Losses, Blip2Error> {
        let settings = &self.settings;
        let texts = Texts::of_samples(samples, &settings.tokenizer, settings.max_txt_len)?;
        let same = |a: usize, b: usize| {
            a == b
                || settings.same_image == SameImage::Positive
                    && samples[a].image_id == samples[b].image_id
        };
        let embeds = self.normed_embeds(images);
        settings.multimodal_compute.products().during(|| {
            let keys = self.multimodal_backbone.image_keys(&embeds);
            let (query_output, states) = self.multimodal_backbone.forward_keys(&keys);

            let logits = self.contrast_logits(query_output, &texts);
            let chosen = {
                let values: Vec<f32> = logits.clone().inner().into_data().iter::<f32>().collect();
                let device = logits.device().inner();
                negatives.choose(&values, texts.len(), same, &device)
            };
            let targets = contrast::targets(texts.len(), same, settings.label_smoothing);
            let device = logits.device().inner();
            let loss_itc = contrast::loss(logits, targets, &device);
            let loss_itm = self.matching_loss(&keys, &texts, &chosen);
            let loss_lm = self.generation_loss(&texts, &states)?;
            Ok(Stage1Losses {
                loss: loss_itc.clone() + loss_itm.clone() + loss_lm.clone(),
                loss_itc,
                loss_itm,
                loss_lm,
                pairs: texts.len(),
            })
        })
    }

    /// Similarities of all images and texts over the temperature: `[images, texts]`.
    fn contrast_logits(&self, query_output: Tensor<3>, texts: &Texts) -> Tensor<2> {
        let device = query_output.device().inner();
        let (ids, mask) = texts.all(First::Cls, &device);
        let image_features = self.project_queries(query_output);
        let text_features = self.project_text(self.multimodal_backbone.forward_text(ids, mask));
        similarity(image_features, text_features) / self.heads.temp.val().unsqueeze()
    }

    /// Right pairs, then each text with a wrong image, then each image with a wrong text.
    fn matching_loss(&self, keys: &ImageKeys, texts: &Texts, chosen: &HardNegatives) -> Tensor<1> {
        let device = self.heads.temp.val().device().inner();
        let mut pairs: Vec<(usize, usize)> = (0..texts.len()).map(|pair| (pair, pair)).collect();
        let wrong_images = chosen.images.iter().enumerate();
        pairs.extend(wrong_images.filter_map(|(text, image)| Some(((*image)?, text))));
        let wrong_texts = chosen.texts.iter().enumerate();
        pairs.extend(wrong_texts.filter_map(|(image, text)| Some((image, (*text)?))));
        let indices: Vec<i64> = pairs.iter().map(|&(image, _)| image as i64).collect();
        let count = indices.len();
        let images = Tensor::from_data(TensorData::new(indices, [count]), &device);
        let (ids, mask) = texts.tensors(pairs.iter().map(|&(_, text)| text), First::Cls, &device);
        let hidden =
            self.multimodal_backbone
                .forward_multimodal_keys(ids, mask, &keys.select(&images));
        let right: Vec<i64> = (0..count).map(|row| i64::from(row < texts.len())).collect();
        let right = Tensor::<2, Int>::from_data(TensorData::new(right, [count, 1]), &device);
        let log_probabilities = log_softmax(self.matching_logits(hidden), 1);
        log_probabilities.gather(1, right).mean().neg()
    }

    /// The words of each text, after the queries of its image.
    fn generation_loss(
        &self,
        texts: &Texts,
        states: &QueryStates,
    ) -> Result<Tensor<1>, Blip2Error> {
        let Some(cls) = &self.heads.cls else {
            return Err(Blip2Error::Config {
                field: "stage1.init_cfg".into(),
                reason: "the checkpoint has no language head (transformers' have none), so it \
                         can't be trained further"
                    .into(),
            });
        };
        let device = self.heads.temp.val().device().inner();
        let dec = First::Dec(self.settings.tokenizer.dec_id());
        let (ids, mask) = texts.all(dec, &device);
        let hidden = self
            .multimodal_backbone
            .forward_text_after(ids, mask, states);
        let (positions, words) = texts.next_words();
        let count = positions.len();
        let positions = Tensor::from_data(TensorData::new(positions, [count]), &device);
        let hidden = hidden.flatten::<2>(0, 1).select(0, positions);
        let embedding = self.word_embedding();
        Ok(cls.loss(hidden, embedding, &words, self.settings.label_smoothing))
    }
}
