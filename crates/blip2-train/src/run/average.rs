//! An exponential moving average of trained weights.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// A model whose trained weights follow those of another one.
#[derive(Debug, Clone)]
pub struct Average<M> {
    decay: f64,
    model: M,
}

impl<M: Module> Average<M> {
    /// Starts at `model`, on the plain device.
    pub fn new(decay: f64, model: &M) -> Self {
        Self {
            decay,
            model: model.valid(),
        }
    }

    /// The averaged model, on the plain device.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// `average = decay × average + (1 − decay) × weight`, for every weight of `model`.
    pub fn update(&mut self, model: &M) {
        let mut blend = Blend {
            decay: self.decay,
            weights: weights(model),
        };
        self.model = self.model.clone().map(&mut blend);
    }
}

/// The weights of `model` by parameter, on the plain device; Burn's container for gradients is one for
/// tensors of any rank.
pub(super) fn weights<M: Module>(model: &M) -> GradientsParams {
    let mut weights = Collect(GradientsParams::new());
    model.visit(&mut weights);
    weights.0
}

struct Collect(GradientsParams);

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.register(param.id, param.val().inner());
    }
}

struct Blend {
    decay: f64,
    weights: GradientsParams,
}

impl ModuleMapper for Blend {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(weight) = self.weights.remove::<D>(param.id) else {
            return param;
        };
        let decay = self.decay;
        param.map(|average| average * decay + weight * (1.0 - decay))
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_average_follows_slowly() {
        let device = Device::default().autodiff();
        let mut linear = LinearConfig::new(1, 1).with_bias(false).init(&device);
        linear.weight = linear.weight.map(|weight| weight.zeros_like());
        let mut average = Average::new(0.9, &linear);
        linear.weight = linear.weight.map(|weight| weight.ones_like());
        let mut value = || {
            average.update(&linear);
            average.model().weight.val().into_scalar::<f32>()
        };
        assert!((value() - 0.1).abs() < 1e-6);
        assert!((value() - 0.19).abs() < 1e-6);
    }
}
