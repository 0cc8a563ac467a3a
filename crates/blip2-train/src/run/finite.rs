//! Finds the tensor that is not finite.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// Whether every value of `tensor` is a finite number.
pub fn is_finite<const D: usize>(tensor: Tensor<D>) -> bool {
    // Infinity and NaN times 0 are NaN.
    let sum = tensor.mul_scalar(0.0).sum();
    sum.into_scalar::<f32>() == 0.0
}

/// The first weight of `module` that is not finite, by its path.
pub fn first_weight<M: Module>(module: &M) -> Option<String> {
    first(module, None)
}

/// The first weight of `module` whose gradient is not finite, by its path.
pub fn first_gradient<M: Module>(module: &M, grads: &GradientsParams) -> Option<String> {
    first(module, Some(grads))
}

fn first<M: Module>(module: &M, grads: Option<&GradientsParams>) -> Option<String> {
    let mut search = Search {
        grads,
        path: Vec::new(),
        found: None,
    };
    module.visit(&mut search);
    search.found
}

struct Search<'a> {
    grads: Option<&'a GradientsParams>,
    path: Vec<String>,
    found: Option<String>,
}

impl ModuleVisitor for Search<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.found.is_some() {
            return;
        }
        let tensor = match self.grads {
            Some(grads) => grads.get::<D>(param.id),
            None => Some(param.val().inner()),
        };
        if tensor.is_some_and(|tensor| !is_finite(tensor)) {
            self.found = Some(self.path.join("."));
        }
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_first_bad_weight_or_gradient_is_named() {
        let device = Device::default().autodiff();
        let mut linear = LinearConfig::new(2, 1).init(&device);
        assert_eq!(first_weight(&linear), None);
        let input = Tensor::<2>::from_data([[f32::INFINITY, 1.0]], &device);
        let grads = linear.forward(input).sum().backward();
        let grads = GradientsParams::from_grads(grads, &linear);
        assert_eq!(first_gradient(&linear, &grads).as_deref(), Some("weight"));
        linear.bias = linear.bias.map(|bias| bias.map(|bias| bias * f32::NAN));
        assert_eq!(first_weight(&linear).as_deref(), Some("bias"));
    }
}
