//! AdamW with LAVIS's parameter groups, and clipping by the global gradient norm.

use blip2_kernels::squared_sum;
use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

use crate::adamw::AdamW;
use crate::recipe::OptimizerConfig;
use crate::schedule::Schedule;

/// Parameters without weight decay: biases and the scales of norms. These are all the
/// one-dimensional parameters, as in LAVIS (`RunnerBase.optimizer`).
const NO_DECAY: &str = r"(^|\.)(bias|gamma|beta)$";

/// The learning rates: one schedule for all, slower ones for the layers of a trained image encoder
/// of `vision_layers` blocks.
///
/// Reference: LAVIS `Blip2Base.get_optimizer_params`: block `i` of `n` learns at
/// `decay^(n − i)` of the rate, the embeddings before the first at `decay^(n + 1)`.
pub fn learning_rates(
    schedule: &Schedule,
    lr_layer_decay: f64,
    vision_layers: Option<usize>,
) -> ModuleLrScheduler {
    let rates = ModuleLrScheduler::new(schedule.clone());
    let Some(layers) = vision_layers.filter(|_| lr_layer_decay != 1.0) else {
        return rates;
    };
    let scaled = |layer: usize| schedule.scaled(lr_layer_decay.powi((layers + 1 - layer) as i32));
    let group = |pattern: &str| {
        ParamGroup::from_regex(pattern).expect("the pattern is a constant and a number")
    };
    // Of the groups that match, the last counts.
    let embeddings = rates.with_group(group(r"^model\.vision_backbone\."), scaled(0));
    (0..layers).fold(embeddings, |rates, block| {
        let pattern = format!(r"^model\.vision_backbone\.blocks\.{block}\.");
        rates.with_group(group(&pattern), scaled(block + 1))
    })
}

/// AdamW in two groups, with and without weight decay; or in one.
pub fn optimizer(config: &OptimizerConfig) -> ModuleOptimizer {
    let decayed = AdamW {
        betas: config.betas,
        eps: config.eps,
        weight_decay: config.weight_decay,
    };
    if config.decay_1d {
        return decayed.into();
    }
    let no_decay = ParamGroup::from_regex(NO_DECAY).expect("the pattern is a constant");
    let kept = AdamW {
        weight_decay: 0.0,
        ..decayed.clone()
    };
    ModuleOptimizer::from(decayed).with_group(no_decay, kept, None)
}

/// The global norm of `grads`.
pub fn grad_norm<M: Module>(module: &M, grads: &GradientsParams) -> f64 {
    let mut norm = SquaredNorm { grads, sum: 0.0 };
    module.visit(&mut norm);
    norm.sum.sqrt()
}

/// Scales `grads`, whose global norm is `norm`, down to `max_norm` if it is more.
///
/// Burn's own clipping looks at each parameter alone; this is `torch.nn.utils.clip_grad_norm_`.
pub fn clip_grads<M: Module>(
    module: &M,
    grads: GradientsParams,
    norm: f64,
    max_norm: Option<f64>,
) -> GradientsParams {
    match max_norm {
        // The epsilon of torch.
        Some(max_norm) if norm > max_norm => scale_grads(module, grads, max_norm / (norm + 1e-6)),
        _ => grads,
    }
}

/// Multiplies all gradients by `factor`.
pub fn scale_grads<M: Module>(module: &M, grads: GradientsParams, factor: f64) -> GradientsParams {
    let mut scale = Scale { grads, factor };
    module.visit(&mut scale);
    scale.grads
}

/// The sums of gradients; where one side has none, the other's.
pub fn add_grads<M: Module>(
    module: &M,
    grads: GradientsParams,
    others: GradientsParams,
) -> GradientsParams {
    let mut add = Add { grads, others };
    module.visit(&mut add);
    add.grads
}

struct Add {
    grads: GradientsParams,
    others: GradientsParams,
}

impl ModuleVisitor for Add {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(other) = self.others.remove::<D>(param.id) {
            let sum = match self.grads.remove::<D>(param.id) {
                Some(grad) => grad + other,
                None => other,
            };
            self.grads.register(param.id, sum);
        }
    }
}

struct SquaredNorm<'a> {
    grads: &'a GradientsParams,
    sum: f64,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.sum += squared_sum(grad);
        }
    }
}

struct Scale {
    grads: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad.mul_scalar(self.factor));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    use super::*;
    use crate::recipe::{ScheduleConfig, ScheduleKind};

    /// The scales that LAVIS's `get_optimizer_params(lr_scale=0.5)` gives an encoder of 2 blocks:
    /// `[0.5 ** (3 - layer) for layer in range(4)]`, patches and positions being layer 0.
    #[test]
    fn layers_of_the_image_encoder_learn_at_the_rates_of_lavis() {
        let config = ScheduleConfig {
            kind: ScheduleKind::Constant,
            per_epoch: false,
            decay_rate: None,
            lr: 1.0,
            min_lr: 0.0,
            warmup_lr: 0.0,
            warmup_steps: 0,
        };
        let schedule = Schedule::new(&config, 1, 1, 0);
        let rate = |layers, path| {
            let rates = learning_rates(&schedule, 0.5, layers).step();
            rates.lr_from_param(ParamId::new(), Some(path))
        };
        for (path, expected) in [
            ("model.vision_backbone.patch_embed.projection.weight", 0.125),
            ("model.vision_backbone.position_embedding", 0.125),
            ("model.vision_backbone.blocks.0.mlp.fc1.weight", 0.25),
            ("model.vision_backbone.blocks.1.attention.qkv.bias", 0.5),
            ("model.multimodal_backbone.query_tokens", 1.0),
        ] {
            assert_eq!(rate(Some(2), path), expected, "{path}");
            assert_eq!(rate(None, path), 1.0, "{path}, frozen");
        }
    }

    #[test]
    fn clipping_scales_all_gradients_to_the_global_norm() {
        let device = Device::default().autodiff();
        let module = LinearConfig::new(2, 2).init(&device);
        let input = Tensor::<2>::from_data([[3.0, 4.0]], &device);
        let grads = module.forward(input).sum().backward();
        let grads = GradientsParams::from_grads(grads, &module);
        // d/dW = [[3, 3], [4, 4]], d/db = [1, 1]: the squares sum to 52.
        let norm = grad_norm(&module, &grads);
        assert!((norm - 52f64.sqrt()).abs() < 1e-5, "{norm}");
        let grads = clip_grads(&module, grads, norm, Some(1.0));
        let norm = grad_norm(&module, &grads);
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
        let bias = grads.get::<1>(module.bias.as_ref().unwrap().id).unwrap();
        let bias: Vec<f32> = bias.into_data().try_to_vec().unwrap();
        assert!((f64::from(bias[0]) - 1.0 / 52f64.sqrt()).abs() < 1e-5);
    }
}
