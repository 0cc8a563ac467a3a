//! One step of AdamW for one parameter.

use burn::tensor::Tensor;

/// The numbers of a step (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2; as torch's `AdamW`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// The learning rate.
    pub lr: f64,
    /// The decay rates of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The number of this step, from 1.
    pub time: i32,
}

impl AdamWStep {
    /// What the weight is multiplied by.
    pub(crate) fn kept(&self) -> f64 {
        1.0 - self.lr * self.weight_decay
    }

    /// What moves the weight along the first moment, with its bias corrected.
    pub(crate) fn rate(&self) -> f64 {
        self.lr / (1.0 - self.betas[0].powi(self.time))
    }

    /// What the second moment is multiplied by to correct its bias.
    pub(crate) fn correction(&self) -> f64 {
        1.0 / (1.0 - self.betas[1].powi(self.time))
    }

    /// The weight and its two moments after the step, from those before it, outside of autodiff.
    pub fn apply<const D: usize>(
        &self,
        weight: Tensor<D>,
        grad: Tensor<D>,
        moments: [Tensor<D>; 2],
    ) -> (Tensor<D>, [Tensor<D>; 2]) {
        #[cfg(feature = "flex")]
        if crate::fused::takes(&weight) && crate::fused::takes(&grad) {
            return crate::fused::adamw(weight, grad, moments, *self);
        }
        let [first, second] = moments;
        let [beta_1, beta_2] = self.betas;
        let first = first * beta_1 + grad.clone() * (1.0 - beta_1);
        let second = second * beta_2 + grad.square() * (1.0 - beta_2);
        let root = (second.clone() * self.correction()).sqrt() + self.eps;
        let weight = weight * self.kept() - first.clone() * self.rate() / root;
        (weight, [first, second])
    }
}

/// The sum of squares of all numbers, outside of autodiff.
pub fn squared_sum<const D: usize>(x: Tensor<D>) -> f64 {
    #[cfg(feature = "flex")]
    if crate::fused::takes(&x) {
        return f64::from(crate::fused::squared_sum(x).into_scalar::<f32>());
    }
    f64::from(x.square().sum().into_scalar::<f32>())
}
