//! A pass through the decoder that keeps no graph of its layers.

use blip2_kernels::{Draws, recomputed};
use burn::tensor::{Int, Tensor};

use super::mask::attention_bias;
use super::{DecoderLayer, Opt};

impl Opt {
    /// As [`forward`](crate::CausalLm::forward), for training: of each layer its input alone is kept for the
    /// backward pass, which runs the layer a second time. The decoder may be a constant, learn, or have
    /// adapters.
    ///
    /// # Shapes
    /// - `inputs_embeds`: `[batch, tokens, hidden_size]`
    /// - `attention_mask`: `[batch, tokens]`, 1 for a token and 0 for padding
    /// - returns: `[batch, tokens, hidden_size]`
    ///
    /// # Panics
    ///
    /// As [`forward`](crate::CausalLm::forward).
    pub fn forward_recomputed(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
    ) -> Tensor<3> {
        let [_, tokens, _] = inputs_embeds.dims();
        let bias = attention_bias(attention_mask.clone(), tokens, inputs_embeds.dtype());
        let hidden = self.enter(inputs_embeds, attention_mask);
        let hidden = self.layers.iter().fold(hidden, |hidden, layer| {
            let draws = layer.has_dropout().then(|| Draws::new(&hidden.device()));
            let bias = bias.clone();
            let forward = move |layer: &DecoderLayer, x| layer.forward(x, bias.clone(), None);
            recomputed(layer, hidden, draws, forward)
        });
        self.leave(hidden)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::{Lora, Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
    use burn::tensor::{Device, Distribution, Gradients};

    use super::*;
    use crate::CausalLm;
    use crate::opt::config::tests::tiny;

    /// Loss and gradient by the whole graph and by one layer at a time; the mask pads both sides.
    #[test]
    fn loss_and_gradient_are_those_of_the_whole_graph() {
        let device = Device::flex().autodiff();
        let mut narrow = tiny();
        narrow.word_embed_proj_dim = 6;
        narrow.do_layer_norm_before = false;
        for config in [tiny(), narrow] {
            let model = config.init(&Device::flex()).unwrap().valid();
            let shape = [2, 5, config.word_embed_proj_dim];
            let embeds = Tensor::<3>::random(shape, Distribution::Default, &device);
            let mask =
                Tensor::<2, Int>::from_data([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]], &Device::flex());
            let head = |hidden: Tensor<3>| hidden.tanh().square().mean();
            let run = |recomputed: bool| {
                let x = embeds.clone().inner();
                let x = Tensor::from_inner(x).require_grad();
                let loss = head(match recomputed {
                    true => model.forward_recomputed(x.clone() * 2.0, mask.clone()),
                    false => model.forward(x.clone() * 2.0, mask.clone(), None),
                });
                let value = loss.clone().into_scalar::<f32>();
                // A factor, as accumulation has one.
                let grad = x.grad(&(loss * 3.0).backward()).unwrap();
                (value, grad.try_into_vec_as::<f32>().unwrap())
            };
            let (whole, recomputed) = (run(false), run(true));
            assert_eq!(whole.0, recomputed.0);
            let scale = whole.1.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
            assert!(scale > 0.0);
            for (whole, recomputed) in whole.1.iter().zip(&recomputed.1) {
                assert!(
                    (whole - recomputed).abs() <= 1e-6 * scale,
                    "{whole}, {recomputed}"
                );
            }
        }
    }

    /// The gradients that there are.
    struct Found<'a>(&'a Gradients, Vec<Vec<f32>>);

    impl ModuleVisitor for Found<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = param.base().grad(self.0) {
                self.1.push(grad.try_into_vec_as::<f32>().unwrap());
            }
        }
    }

    /// Draws adapters and puts them where they learn.
    struct Adapt(bool);

    impl ModuleMapper for Adapt {
        fn enter_module(&mut self, _name: &str, container: &str) {
            self.0 |= container == "Reparameterization";
        }

        fn exit_module(&mut self, _name: &str, container: &str) {
            self.0 &= container != "Reparameterization";
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.0 {
                true => param.map(|factor| {
                    let range = Distribution::Normal(0.0, 0.3);
                    let device = Device::flex().autodiff();
                    Tensor::random(factor.dims(), range, &device).require_grad()
                }),
                false => param,
            }
        }
    }

    #[test]
    fn gradients_of_adapters_are_those_of_the_whole_graph() {
        let config = tiny();
        let paths = vec![
            "layers.0.self_attn.q_proj.weight",
            "layers.0.fc2.weight",
            "layers.1.self_attn.v_proj.weight",
        ];
        let lora = Lora::new(2, 4.0).set_param_group(ParamGroup::from_paths(paths));
        let model = config.init(&Device::flex()).unwrap().valid();
        let model = model.apply_lora(lora).map(&mut Adapt(false));
        let mask = Tensor::<2, Int>::from_data([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]], &Device::flex());
        let shape = [2, 5, config.word_embed_proj_dim];
        let head = |hidden: Tensor<3>| hidden.tanh().square().mean();
        // What the decoder reads may be a constant, where adapters alone learn.
        for device in [Device::flex().autodiff(), Device::flex()] {
            let embeds = Tensor::<3>::random(shape, Distribution::Default, &device);
            let run = |recomputed: bool| {
                let loss = head(match recomputed {
                    true => model.forward_recomputed(embeds.clone(), mask.clone()),
                    false => model.forward(embeds.clone(), mask.clone(), None),
                });
                let gradients = (loss * 3.0).backward();
                let mut found = Found(&gradients, Vec::new());
                model.visit(&mut found);
                found.1
            };
            let (whole, recomputed) = (run(false), run(true));
            assert_eq!(whole.len(), 6);
            assert_eq!(recomputed.len(), 6);
            for (whole, recomputed) in whole.iter().zip(&recomputed) {
                let scale = whole.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
                assert!(scale > 0.0);
                for (whole, recomputed) in whole.iter().zip(recomputed) {
                    let error = (whole - recomputed).abs();
                    assert!(error <= 2e-6 * scale, "{whole}, {recomputed}");
                }
            }
        }
    }
}
