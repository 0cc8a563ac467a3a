//! A training step through a frozen decoder that keeps no graph of it.
//!
//! Autodiff keeps what the backward pass of every layer needs until that pass runs: about sixteen
//! numbers a channel and token, and of weights in half precision the widened copies. Here the first
//! pass keeps the input of each layer alone. The graph of a layer is made again when its turn comes,
//! and is gone before that of the layer below: a second forward pass for the memory of one layer.

use blip2_kernels::with_gradient;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Gradients, Int, Tensor};

use super::Opt;
use super::mask::attention_bias;

impl Opt {
    /// `head` of the hidden states of [`forward`](crate::CausalLm::forward), with the gradient that
    /// it has for `inputs_embeds` and for LoRA adapters, and none for the decoder's own weights.
    ///
    /// # Shapes
    /// - `inputs_embeds`: `[batch, tokens, hidden_size]`
    /// - `attention_mask`: `[batch, tokens]`, 1 for a token and 0 for padding
    /// - returns: `[1]`, what `head` returns
    ///
    /// # Panics
    ///
    /// As [`forward`](crate::CausalLm::forward).
    pub fn loss_recomputed(
        &self,
        inputs_embeds: Tensor<3>,
        attention_mask: Tensor<2, Int>,
        head: impl FnOnce(Tensor<3>) -> Tensor<1>,
    ) -> Tensor<1> {
        let device = inputs_embeds.device();
        if !device.is_autodiff() && !Learned::any(self) {
            return head(crate::CausalLm::forward(
                self,
                inputs_embeds,
                attention_mask,
                None,
            ));
        }
        let [_, tokens, _] = inputs_embeds.dims();
        let stages = Stages {
            model: self,
            bias: attention_bias(attention_mask.clone(), tokens, inputs_embeds.dtype()),
            attention_mask,
            seed: self.dropout_seed(&device),
            device,
        };
        let last = self.layers.len() + 1;
        let mut inputs = Vec::with_capacity(last + 1);
        let mut hidden = inputs_embeds.clone().inner();
        for stage in 0..=last {
            inputs.push(hidden.clone());
            // Nothing here requires a gradient, so nothing is kept.
            hidden = stages.run(stage, Tensor::from_inner(hidden)).inner();
        }
        let top = Tensor::from_inner(hidden).require_grad();
        let loss = head(top.clone());
        let value = loss.clone().inner();
        let mut slope = gradient(&top, &loss.backward());
        let mut learned = Vec::new();
        for (stage, input) in inputs.into_iter().enumerate().rev() {
            let input = Tensor::from_inner(input).require_grad();
            let output = stages.run(stage, input.clone());
            let gradients = (output * Tensor::from_inner(slope)).sum().backward();
            learned.extend(Learned::gradients(self, &gradients));
            slope = gradient(&input, &gradients);
        }
        let loss = with_gradient(value, inputs_embeds, slope);
        learned
            .into_iter()
            .fold(loss, |loss, (x, grad)| with_gradient(loss, x, grad))
    }

    /// A seed from which both passes draw the same dropout.
    fn dropout_seed(&self, device: &Device) -> Option<u64> {
        if !self.layers.iter().any(super::DecoderLayer::has_dropout) {
            return None;
        }
        let draw = Tensor::<1>::random([1], Distribution::Uniform(0.0, 1e6), device);
        Some(draw.into_scalar::<f32>() as u64)
    }
}

/// The decoder in pieces: what stands before the layers, the layers, what stands behind them.
struct Stages<'a> {
    model: &'a Opt,
    bias: Tensor<4>,
    attention_mask: Tensor<2, Int>,
    seed: Option<u64>,
    device: Device,
}

impl Stages<'_> {
    fn run(&self, stage: usize, hidden: Tensor<3>) -> Tensor<3> {
        if let Some(seed) = self.seed {
            self.device.seed(seed + stage as u64);
        }
        let layers = &self.model.layers;
        match stage {
            0 => self.model.enter(hidden, self.attention_mask.clone()),
            stage if stage <= layers.len() => {
                layers[stage - 1].forward(hidden, self.bias.clone(), None)
            }
            _ => self.model.leave(hidden),
        }
    }
}

/// The gradient for `x`, outside of autodiff.
fn gradient(x: &Tensor<3>, gradients: &Gradients) -> Tensor<3> {
    x.grad(gradients)
        .unwrap_or_else(|| x.clone().inner().zeros_like())
}

/// Looks for what learns in a decoder: the matrices of adapters.
struct Learned<'a> {
    gradients: Option<&'a Gradients>,
    any: bool,
    /// Parameters and their gradients, flat.
    found: Vec<(Tensor<1>, Tensor<1>)>,
}

impl<'a> Learned<'a> {
    fn any(model: &Opt) -> bool {
        Self::visit(model, None).any
    }

    /// What `gradients` holds for the decoder.
    fn gradients(model: &Opt, gradients: &'a Gradients) -> Vec<(Tensor<1>, Tensor<1>)> {
        Self::visit(model, Some(gradients)).found
    }

    fn visit(model: &Opt, gradients: Option<&'a Gradients>) -> Self {
        let mut learned = Self {
            gradients,
            any: false,
            found: Vec::new(),
        };
        model.visit(&mut learned);
        learned
    }
}

impl ModuleVisitor for Learned<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        if !tensor.is_require_grad() {
            return;
        }
        self.any = true;
        if let Some(grad) = self.gradients.and_then(|gradients| tensor.grad(gradients)) {
            let count = grad.dims().iter().product::<usize>();
            let flat = (tensor.reshape([count]), grad.reshape([count]));
            self.found.push(flat);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::{Lora, ModuleMapper, ParamGroup};

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
                let loss = match recomputed {
                    true => model.loss_recomputed(x.clone() * 2.0, mask.clone(), head),
                    false => head(model.forward(x.clone() * 2.0, mask.clone(), None)),
                };
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
                let loss = match recomputed {
                    true => model.loss_recomputed(embeds.clone(), mask.clone(), head),
                    false => head(model.forward(embeds.clone(), mask.clone(), None)),
                };
                let gradients = (loss * 3.0).backward();
                let found = Learned::gradients(&model, &gradients);
                let values = |grad: Tensor<1>| grad.try_into_vec_as::<f32>().unwrap();
                found
                    .into_iter()
                    .map(|(_, grad)| values(grad))
                    .collect::<Vec<_>>()
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
