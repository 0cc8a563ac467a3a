//! AdamW in one pass over the numbers of a parameter.

use blip2_kernels::AdamWStep;
use burn::optim::{AdamWState, AdaptiveMomentumState, LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};

/// AdamW as torch has it. Its state is that of Burn's own, which goes over each number ten times.
#[derive(Debug, Clone)]
pub struct AdamW {
    /// The decay rates of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        weight: Tensor<D>,
        grad: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let (moments, time) = match state.map(|state| state.momentum) {
            Some(state) => ([state.moment_1, state.moment_2], state.time + 1),
            None => ([grad.zeros_like(), grad.zeros_like()], 1),
        };
        let step = AdamWStep {
            lr,
            betas: self.betas,
            eps: self.eps,
            weight_decay: self.weight_decay,
            time: time as i32,
        };
        let (weight, [first, second]) = step.apply(weight, grad, moments);
        let state = AdamWState::new(AdaptiveMomentumState::new(time, first, second));
        (weight, Some(state))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        burn::optim::AdamW::to_device(state, device)
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::AdamWConfig;
    use burn::tensor::{Distribution, Tolerance};

    use super::*;

    #[test]
    fn steps_are_those_of_burns_adamw() {
        let device = Device::default();
        let ours = AdamW {
            betas: [0.9, 0.98],
            eps: 1e-6,
            weight_decay: 0.1,
        };
        let theirs = AdamWConfig::new()
            .with_beta_2(0.98)
            .with_epsilon(1e-6)
            .with_weight_decay(0.1)
            .build();
        let normal = || Tensor::<2>::random([70, 300], Distribution::Normal(0.0, 1.0), &device);
        let mut found = (normal(), None);
        let mut expected = (found.0.clone(), None);
        for _ in 0..4 {
            let grad = normal();
            found = ours.step(1e-2, found.0, grad.clone(), found.1);
            expected = theirs.step(1e-2, expected.0, grad, expected.1);
            // A few roundings of numbers near 1.
            found.0.clone().into_data().assert_approx_eq::<f32>(
                &expected.0.clone().into_data(),
                Tolerance::absolute(1e-6),
            );
        }
    }
}
