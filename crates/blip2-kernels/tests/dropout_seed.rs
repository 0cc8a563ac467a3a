//! Alone in its process: the device's random numbers are shared by all threads.

use blip2_kernels::dropout;
use burn::nn::DropoutConfig;
use burn::tensor::{Device, Tensor};

#[test]
fn draws_follow_the_seed_of_the_device() {
    let device = Device::flex().autodiff();
    let half = DropoutConfig::new(0.5).init();
    let draw = |seed| {
        device.seed(seed);
        let dropped = dropout(Tensor::<2>::ones([8, 32], &device), &half);
        dropped.into_data().iter::<f32>().collect::<Vec<_>>()
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
}
