//! The whole decoder.

use blip2_kernels::LayerNorm;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear};
use burn::tensor::{Device, Int, Tensor};

use super::config::POSITION_OFFSET;
use super::mask::{attention_bias, position_rows};
use super::{DecoderLayer, OptConfig};
use crate::{CausalLm, KvCache, LmError};

/// An OPT decoder. The output layer is the token embedding, transposed.
#[derive(Module, Debug)]
pub struct Opt {
    embed_tokens: Embedding,
    embed_positions: Embedding,
    project_in: Option<Linear>,
    pub(super) layers: Vec<DecoderLayer>,
    /// Only where the layers norm before: else the last layer has normed already.
    final_layer_norm: Option<LayerNorm>,
    project_out: Option<Linear>,
}

impl OptConfig {
    /// A decoder with random weights.
    ///
    /// # Errors
    ///
    /// If [`validate`](Self::validate) finds a wrong field.
    pub fn init(&self, device: &Device) -> Result<Opt, LmError> {
        self.validate()?;
        let embedding = |rows, width| {
            EmbeddingConfig::new(rows, width)
                .with_initializer(Self::initializer())
                .init(device)
        };
        let (narrow, wide) = (self.word_embed_proj_dim, self.hidden_size);
        let projection = |inputs, outputs| {
            self.has_projections()
                .then(|| Self::linear(inputs, outputs, false, device))
        };
        let positions = self.max_position_embeddings + POSITION_OFFSET;
        Ok(Opt {
            embed_tokens: embedding(self.vocab_size, narrow),
            embed_positions: embedding(positions, wide),
            project_in: projection(narrow, wide),
            layers: (0..self.num_hidden_layers)
                .map(|_| DecoderLayer::new(self, device))
                .collect(),
            final_layer_norm: self.do_layer_norm_before.then(|| self.norm(device)),
            project_out: projection(wide, narrow),
        })
    }
}

impl Opt {
    /// As [`CausalLm::forward`], showing `tap` each intermediate: `embeddings` (positions added),
    /// `layers.0`, `layers.1`, …, `final` (what is returned).
    pub fn forward_with_taps(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        mut cache: Option<&mut KvCache>,
        tap: &mut dyn FnMut(&str, &Tensor<3>),
    ) -> Tensor<3> {
        let [_, new, _] = inputs_embeds.dims();
        let bias = attention_bias(attention_mask.clone(), new, inputs_embeds.dtype());
        let mut hidden = self.enter(inputs_embeds, attention_mask);
        tap("embeddings", &hidden);
        for (index, layer) in self.layers.iter().enumerate() {
            let cache = cache.as_deref_mut().map(|cache| cache.layer(index));
            hidden = layer.forward(hidden, bias.clone(), cache);
            tap(&format!("layers.{index}"), &hidden);
        }
        let hidden = self.leave(hidden);
        tap("final", &hidden);
        hidden
    }

    /// What the first layer reads.
    pub(super) fn enter(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
    ) -> Tensor<3> {
        let [_, new, _] = inputs_embeds.dims();
        let positions = self
            .embed_positions
            .forward(position_rows(attention_mask, new))
            .cast(inputs_embeds.dtype());
        project(&self.project_in, inputs_embeds) + positions
    }

    /// What becomes of the last layer's output.
    pub(super) fn leave(&self, hidden: Tensor<3>) -> Tensor<3> {
        let hidden = match &self.final_layer_norm {
            Some(norm) => norm.forward(hidden),
            None => hidden,
        };
        project(&self.project_out, hidden)
    }
}

fn project(projection: &Option<Linear>, x: Tensor<3>) -> Tensor<3> {
    match projection {
        Some(linear) => OptConfig::apply(linear, x),
        None => x,
    }
}

impl CausalLm for Opt {
    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(input_ids)
    }

    fn forward(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        self.forward_with_taps(inputs_embeds, attention_mask, cache, &mut |_, _| {})
    }

    fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, width] = hidden.dims();
        let embedding = self.embed_tokens.weight.val();
        let [vocab, _] = embedding.dims();
        // One two-dimensional product: a batched one would broadcast the embedding.
        let hidden = hidden.reshape([batch * tokens, width]);
        blip2_kernels::tied_logits(hidden, embedding).reshape([batch, tokens, vocab])
    }

    fn cross_entropy(&self, hidden: Tensor<2>, ids: &[i64]) -> Tensor<1> {
        blip2_kernels::tied_cross_entropy(hidden, self.embed_tokens.weight.val(), ids)
    }

    fn hidden_size(&self) -> usize {
        self.embed_tokens.weight.lazy_shape()[1]
    }

    fn vocab_size(&self) -> usize {
        self.embed_tokens.weight.lazy_shape()[0]
    }

    fn max_positions(&self) -> usize {
        self.embed_positions.weight.lazy_shape()[0] - POSITION_OFFSET
    }
}

#[cfg(test)]
mod tests {
    use blip2_kernels::MatricesTo;
    use burn::module::{ModuleVisitor, Param};
    use burn::tensor::{DType, FloatDType};

    use super::*;
    use crate::opt::config::tests::tiny;

    #[test]
    fn num_params_counts_the_module() {
        let mut narrow = tiny();
        narrow.word_embed_proj_dim = 6;
        narrow.do_layer_norm_before = false;
        let mut without_bias = tiny();
        without_bias.enable_bias = false;
        for config in [tiny(), narrow, without_bias] {
            let model = config.init(&Device::flex()).unwrap();
            assert_eq!(config.num_params(), model.num_params(), "{config:?}");
            assert_eq!(model.hidden_size(), config.word_embed_proj_dim);
            assert_eq!(model.vocab_size(), config.vocab_size);
            assert_eq!(model.max_positions(), config.max_position_embeddings);
        }
    }

    #[test]
    fn initial_weights_are_normal_and_biases_zero() {
        let mut config = tiny();
        config.vocab_size = 4000;
        let model = config.init(&Device::flex()).unwrap();
        let weights: Vec<f32> = model.embed_tokens.weight.val().try_into_vec_as().unwrap();
        let mean_square: f32 = weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32;
        // 48000 draws: the sample deviation of the deviation is 0.3 %.
        assert!(
            (mean_square.sqrt() - 0.02).abs() < 0.02 * 0.02,
            "{}",
            mean_square.sqrt()
        );
        struct BiasesAndNorms(usize);
        impl ModuleVisitor for BiasesAndNorms {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if D == 1 {
                    let values: Vec<f32> = param.val().try_into_vec_as().unwrap();
                    let first = values[0];
                    assert!(first == 0.0 || first == 1.0);
                    assert!(values.iter().all(|&value| value == first));
                    self.0 += 1;
                }
            }
        }
        let mut seen = BiasesAndNorms(0);
        model.visit(&mut seen);
        assert_eq!(
            seen.0,
            2 * (6 + 4) + 2,
            "six biases and two norms a layer, and the last norm"
        );
    }

    #[test]
    fn a_row_of_padding_only_stays_finite() {
        let model = tiny().init(&Device::flex()).unwrap();
        let padding = Tensor::<2, Int>::zeros([1, 3], &Device::flex());
        let output = model.forward(Tensor::zeros([1, 3, 12], &Device::flex()), padding, None);
        let output: Vec<f32> = output.try_into_vec_as().unwrap();
        assert!(output.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn half_precision_weights_are_widened_for_f32_embeddings() {
        let device = Device::flex();
        let model = tiny().init(&device).unwrap();
        let ids = Tensor::<2, Int>::from_data([[2, 5, 9, 4], [1, 2, 7, 3]], &device);
        let mask = Tensor::<2, Int>::from_data([[1, 1, 1, 1], [0, 1, 1, 1]], &device);
        let embeds = model.embed(ids);
        let full = model.logits(model.forward(embeds.clone(), mask.clone(), None));
        let model = model.map(&mut MatricesTo(FloatDType::BF16));
        assert_eq!(
            model.embed(Tensor::from_data([[2]], &device)).dtype(),
            DType::BF16
        );
        let half = model.logits(model.forward(embeds, mask, None));
        assert_eq!(half.dtype(), DType::F32);
        let (full, half): (Vec<f32>, Vec<f32>) = (
            full.try_into_vec_as().unwrap(),
            half.try_into_vec_as().unwrap(),
        );
        let scale = full.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
        for (full, half) in full.iter().zip(&half) {
            // bf16 has 8 bits, so a weight is off by 0.2 % on average, in no one direction.
            assert!((full - half).abs() < 0.02 * scale, "{full} {half}");
        }
    }
}
