//! `loss` and `predict`: how text and image meet.

use blip2_data::{CaptionSample, ImageInput, Prediction};
use blip2_lm::{CausalLm, GenerationConfig, generate_after};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::loss::{Losses, Targets, TextBatch};
use crate::{Blip2Caption, Blip2Error};

/// What a training step gives to the language model.
struct TrainingInputs {
    /// Queries and text: `[batch, positions, width]`.
    inputs_embeds: Tensor<3>,
    /// `[batch, positions]`
    attention_mask: Tensor<2, Int>,
    /// The positions that are scored.
    targets: Targets,
}

impl Blip2Caption {
    /// The caption cross-entropy of a batch.
    ///
    /// The language model reads the queries, BOS, the prompt and the caption, which ends with a
    /// line break. Padding, queries and prompt are not scored (nor is BOS, unless `score_bos` is
    /// set and the prompt is empty). Logits are made for scored positions only, a few
    /// at a time.
    ///
    /// # Shapes
    /// - `images`: as in [`visual_prefix`](Self::visual_prefix), one for each sample
    ///
    /// # Errors
    ///
    /// A sample without text, or with an empty one; a prompt that fills `max_txt_len`.
    ///
    /// Reference: LAVIS `Blip2OPT.forward`.
    pub fn loss(
        &self,
        images: impl Into<ImageInput>,
        samples: &[CaptionSample],
    ) -> Result<Losses, Blip2Error> {
        let inputs = self.training_inputs(images, samples, &mut |_, _| {})?;
        let TrainingInputs {
            inputs_embeds,
            attention_mask,
            targets,
        } = inputs;
        let lm = self.text_backbone.get();
        let products = self.compute.text_backbone.products();
        let loss = products.during(|| {
            let hidden = match self.recompute.text_backbone {
                true => lm.forward_recomputed(inputs_embeds, attention_mask),
                false => lm.forward(inputs_embeds, attention_mask, None),
            };
            lm.cross_entropy(targets.select(hidden), &targets.ids)
        });
        Ok(Losses {
            loss,
            tokens: targets.positions.len(),
        })
    }

    /// Shows `tap` the tensors between the images and the logits by name, in order: to look for the
    /// one where something went wrong.
    ///
    /// # Errors
    ///
    /// As [`loss`](Self::loss).
    pub fn trace(
        &self,
        images: impl Into<ImageInput>,
        samples: &[CaptionSample],
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Result<(), Blip2Error> {
        let inputs = self.training_inputs(images, samples, tap)?;
        self.text_backbone.get().forward_with_taps(
            inputs.inputs_embeds,
            inputs.attention_mask,
            None,
            &mut |name, tensor| tap(&format!("text_backbone.{name}"), tensor),
        );
        Ok(())
    }

    /// What the language model reads in training, and what it is scored on.
    fn training_inputs(
        &self,
        images: impl Into<ImageInput>,
        samples: &[CaptionSample],
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Result<TrainingInputs, Blip2Error> {
        let rows = samples
            .iter()
            .map(|sample| self.training_row(sample))
            .collect::<Result<Vec<_>, _>>()?;
        let text = TextBatch::new(&rows, self.text.tokenizer.pad_id());
        let targets = text.targets(self.architecture.qformer.num_query_tokens);
        if targets.positions.is_empty() {
            return Err(Blip2Error::Config {
                field: "model.max_txt_len".into(),
                reason: format!(
                    "is {}: the prompt leaves no room for a caption in any row",
                    self.text.max_txt_len
                ),
            });
        }
        let prefix = self.visual_prefix_with_taps(images, tap);
        let [batch, num_queries, _] = prefix.dims();
        let device = prefix.device().inner();

        let lm = self.text_backbone.get();
        let (input_ids, text_mask) = text.to_tensors(&device);
        let query_mask = Tensor::<2, Int>::ones([batch, num_queries], &device);
        // A frozen language model may be kept in half precision; it computes in the neck's.
        let text_embeds = lm.embed(input_ids).cast(prefix.dtype());
        Ok(TrainingInputs {
            inputs_embeds: Tensor::cat(vec![prefix, text_embeds], 1),
            attention_mask: Tensor::cat(vec![query_mask, text_mask], 1),
            targets,
        })
    }

    /// Captions a batch: fills `pred_caption` and `predictions` of each sample.
    ///
    /// # Shapes
    /// - `images`: as in [`visual_prefix`](Self::visual_prefix), one for each sample
    ///
    /// # Errors
    ///
    /// An impossible `generation`, or non-finite logits.
    pub fn predict(
        &self,
        images: impl Into<ImageInput>,
        samples: Vec<CaptionSample>,
        generation: &GenerationConfig,
    ) -> Result<Vec<CaptionSample>, Blip2Error> {
        let rows = self.prompt_rows(&samples)?;
        let prefix = self.visual_prefix(images);
        let prompt_ids = match generation.penalize_prompt {
            true => self.with_image_tokens(&rows),
            false => Vec::new(),
        };
        let (inputs_embeds, attention_mask) = self.generation_inputs(prefix, &rows);
        let generation = GenerationConfig {
            num_return_sequences: self.text.num_captions.max(generation.num_return_sequences),
            eos_token_ids: self.text.eos_token_ids.clone(),
            pad_token_id: self.text.tokenizer.pad_id(),
            ..generation.clone()
        };
        let products = self.compute.text_backbone.products();
        let hypotheses = products.during(|| {
            generate_after(
                self.text_backbone.get(),
                inputs_embeds,
                attention_mask,
                &prompt_ids,
                &generation,
            )
        })?;
        samples
            .into_iter()
            .zip(hypotheses)
            .map(|(sample, hypotheses)| {
                let predictions = hypotheses
                    .into_iter()
                    .map(|hypothesis| {
                        Ok(Prediction {
                            caption: self
                                .text
                                .tokenizer
                                .decode(&hypothesis.token_ids)?
                                .trim()
                                .to_string(),
                            token_ids: hypothesis.token_ids,
                            score: hypothesis.score,
                        })
                    })
                    .collect::<Result<Vec<_>, Blip2Error>>()?;
                Ok(CaptionSample {
                    pred_caption: predictions.first().map(|best| best.caption.clone()),
                    predictions,
                    ..sample
                })
            })
            .collect()
    }

    /// BOS, prompt, caption and line break, cut to `max_txt_len`; and how many are not scored.
    fn training_row(&self, sample: &CaptionSample) -> Result<(Vec<u32>, usize), Blip2Error> {
        let caption = sample.text.as_deref().map(str::trim).unwrap_or_default();
        if caption.is_empty() {
            return Err(Blip2Error::Sample {
                image_id: sample.image_id.clone(),
                reason: "has no caption to learn".into(),
            });
        }
        let tokenizer = &self.text.tokenizer;
        let prompt = self.prompt(sample);
        let mut ids = vec![tokenizer.bos_id()];
        let text = if prompt.is_empty() {
            format!("{caption}\n")
        } else {
            format!("{prompt} {caption}\n")
        };
        ids.extend(tokenizer.encode(&text)?);
        ids.truncate(self.text.max_txt_len);
        let unscored = match prompt {
            "" => usize::from(!self.text.score_bos),
            prompt => 1 + tokenizer.encode(prompt)?.len(),
        };
        Ok((ids, unscored))
    }

    fn prompt<'a>(&'a self, sample: &'a CaptionSample) -> &'a str {
        sample.prompt.as_deref().unwrap_or(&self.text.prompt).trim()
    }

    /// BOS and prompt of each sample.
    fn prompt_rows(&self, samples: &[CaptionSample]) -> Result<Vec<Vec<u32>>, Blip2Error> {
        let tokenizer = &self.text.tokenizer;
        samples
            .iter()
            .map(|sample| {
                let mut ids = vec![tokenizer.bos_id()];
                ids.extend(tokenizer.encode(self.prompt(sample))?);
                Ok(ids)
            })
            .collect()
    }

    /// Prompts as transformers has them: with a token for each query before.
    fn with_image_tokens(&self, rows: &[Vec<u32>]) -> Vec<Vec<u32>> {
        let queries = self.architecture.qformer.num_query_tokens;
        let image = self.text.image_token_id.into_iter();
        rows.iter()
            .map(|ids| {
                let images = image.clone().cycle().take(queries);
                images.chain(ids.iter().copied()).collect()
            })
            .collect()
    }

    /// Queries, BOS and prompt of each row, padded on the left to one length.
    fn generation_inputs(
        &self,
        prefix: Tensor<3>,
        rows: &[Vec<u32>],
    ) -> (Tensor<3>, Tensor<2, Int>) {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let device = prefix.device();
        let lm = self.text_backbone.get();
        let dtype = prefix.dtype();
        let embed = |ids: &[u32], device: &Device| {
            let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
            let shape = [1, ids.len()];
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), device);
            lm.embed(ids).cast(dtype)
        };
        if rows.iter().all(|ids| *ids == rows[0]) {
            let [batch, num_queries, _] = prefix.dims();
            let text = embed(&rows[0], &device).repeat_dim(0, batch);
            let mask = Tensor::ones([batch, num_queries + longest], &device);
            return (Tensor::cat(vec![prefix, text], 1), mask);
        }
        // The padding goes before the queries, so that each row looks as it would alone.
        let [_, num_queries, width] = prefix.dims();
        let (mut embeds, mut masks) = (Vec::new(), Vec::new());
        for (row, ids) in rows.iter().enumerate() {
            let padding = longest - ids.len();
            let queries = prefix.clone().narrow(0, row, 1);
            let mut parts = vec![queries, embed(ids, &device)];
            let mut mask = vec![Tensor::<2, Int>::ones(
                [1, num_queries + ids.len()],
                &device,
            )];
            if padding > 0 {
                parts.insert(0, Tensor::zeros([1, padding, width], &device));
                mask.insert(0, Tensor::zeros([1, padding], &device));
            }
            embeds.push(Tensor::cat(parts, 1));
            masks.push(Tensor::cat(mask, 1));
        }
        (Tensor::cat(embeds, 0), Tensor::cat(masks, 0))
    }
}
