//! Gradients through a frozen OPT against torch's: values of `tests/reference/opt.py`.

mod fixture;

use blip2_lm::CausalLm;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Gradients, Tensor};
use fixture::{load, read, relative_error, tensor, values};
use safetensors::SafeTensors;

/// Of the gradient, over its largest number: two layers there and back. Measured: 7e-7.
const GRADIENT: f32 = 5e-6;

/// Of the loss, a mean over some fifteen tokens.
const LOSS: f32 = 2e-6;

struct Gradless<'a>(&'a Gradients);

impl ModuleVisitor for Gradless<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        assert!(
            param.val().grad(self.0).is_none(),
            "a frozen weight has a gradient"
        );
    }
}

/// Caption cross-entropy and its gradient, with the weights on `weights` and the inputs tracked.
fn compare(model: &str, weights: &Device) {
    let tracked = Device::default().autodiff();
    let bytes = read(model);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let opt = load(&bytes, weights).freeze();
    let embeds = tensor::<3>(&file, "inputs_embeds", &tracked).require_grad();
    let mask = tensor::<2>(&file, "mask", &tracked).int();
    let hidden = opt.forward(embeds.clone(), mask, None);
    let logits = opt.logits(hidden);

    let [batch, tokens, vocab] = logits.dims();
    let labels = tensor::<2>(&file, "labels", &tracked).narrow(1, 1, tokens - 1);
    let scored = labels
        .clone()
        .greater_equal_scalar(0)
        .float()
        .unsqueeze_dim::<3>(2);
    let labels = labels.clamp_min(0).int().unsqueeze_dim::<3>(2);
    let log_probs = log_softmax(logits.narrow(1, 0, tokens - 1), 2).gather(2, labels);
    assert_eq!(log_probs.dims(), [batch, tokens - 1, 1]);
    assert_eq!(vocab, 61);
    let loss = (log_probs * scored.clone()).sum() / scored.sum();
    let loss = loss.neg();
    let value: f32 = loss.clone().into_scalar();
    let expected = values(&file, "loss").0[0];
    assert!(
        (value - expected).abs() < LOSS * expected,
        "{model}: {value} {expected}"
    );

    let gradients = loss.backward();
    opt.visit(&mut Gradless(&gradients));
    let gradient: Vec<f32> = embeds.grad(&gradients).unwrap().try_into_vec_as().unwrap();
    let error = relative_error(&gradient, &values(&file, "grad").0);
    println!("{model}: {error:.1e}");
    assert!(error < GRADIENT, "{model}: {error}");
}

#[test]
fn matches_torch_gradients_with_frozen_weights_on_the_training_device() {
    compare("opt/pre_norm.safetensors", &Device::default().autodiff());
    compare("opt/post_norm.safetensors", &Device::default().autodiff());
}

#[test]
fn matches_torch_gradients_with_weights_outside_autodiff() {
    compare("opt/pre_norm.safetensors", &Device::default());
    compare("opt/post_norm.safetensors", &Device::default());
}
