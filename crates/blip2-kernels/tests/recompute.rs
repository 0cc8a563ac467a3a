//! Recomputed blocks. A program of its own with one test at a time: the device's random numbers are shared by
//! all threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use blip2_kernels::{Activation, Draws, LayerNorm, Products, dropout, linear, recomputed};
use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Gradients, Tensor};

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Module, Debug)]
struct Block {
    norm: LayerNorm,
    first: Linear,
    second: Linear,
    dropout: Dropout,
}

impl Block {
    fn new(device: &Device) -> Self {
        let block = Self {
            norm: LayerNorm::new(8, 1e-5, device),
            first: LinearConfig::new(8, 20).init(device),
            second: LinearConfig::new(20, 8).init(device),
            dropout: DropoutConfig::new(0.3).init(),
        };
        // Burn draws weights when they are first looked at: not between those of dropout.
        block.visit(&mut Look);
        block
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = linear(self.norm.forward(x.clone()), &self.first, Activation::Gelu);
        let inner = dropout(inner, &self.dropout);
        // Burn's own dropout as well: it draws a mask.
        let out = self
            .dropout
            .forward(linear(inner, &self.second, Activation::None));
        x + out
    }
}

struct Look;

impl ModuleVisitor for Look {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        param.val();
    }
}

/// The gradients of a module's parameters, in order.
struct Found<'a>(&'a Gradients, Vec<Vec<f32>>);

impl ModuleVisitor for Found<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = param.val().grad(self.0).expect("every parameter learns");
        self.1.push(grad.into_data().iter::<f32>().collect());
    }
}

/// The loss of two blocks, one after the other and the first once more, and all gradients of twice that loss.
fn pass(blocks: &[Block], x: &Tensor<3>, again: bool) -> (f32, Vec<Vec<f32>>) {
    let device = Device::flex().autodiff();
    device.seed(7);
    let x = Tensor::from_inner(x.clone()).require_grad();
    let hidden = [0, 1, 0].into_iter().fold(x.clone() * 1.5, |x, index| {
        let (block, draws) = (&blocks[index], Draws::new(&device));
        match again {
            true => recomputed(block, x, Some(draws), Block::forward),
            false => draws.during(|| block.forward(x)),
        }
    });
    let loss = hidden.tanh().square().mean();
    let gradients = (loss.clone() * 2.0).backward();
    let mut found = Found(&gradients, Vec::new());
    blocks.iter().for_each(|block| block.visit(&mut found));
    let mut found = found.1;
    let of_x = x.grad(&gradients).unwrap();
    found.push(of_x.into_data().iter::<f32>().collect());
    (loss.into_scalar::<f32>(), found)
}

#[test]
fn loss_and_gradients_are_those_of_the_whole_graph_to_the_bit() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    device.seed(3);
    let blocks = [Block::new(&device), Block::new(&device)];
    let x = Tensor::random([2, 3, 8], Distribution::Normal(0.0, 1.0), &Device::flex());
    for products in [Products::F32, Products::BF16] {
        let whole = products.during(|| pass(&blocks, &x, false));
        let recomputed = products.during(|| pass(&blocks, &x, true));
        assert_eq!(whole.0, recomputed.0);
        assert_eq!(whole.1.len(), 13);
        for (whole, recomputed) in whole.1.iter().zip(&recomputed.1) {
            assert!(whole.iter().any(|&number| number != 0.0));
            assert_eq!(whole, recomputed);
        }
    }
}

#[test]
fn parameters_learn_from_a_constant_input() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    device.seed(4);
    let block = Block::new(&device);
    let x = Tensor::random([1, 4, 8], Distribution::Normal(0.0, 1.0), &Device::flex());
    let gradients = |again: bool| {
        device.seed(5);
        let draws = Draws::new(&device);
        let out = match again {
            true => recomputed(&block, x.clone(), Some(draws), Block::forward),
            false => draws.during(|| block.forward(x.clone())),
        };
        let gradients = out.square().sum().backward();
        let mut found = Found(&gradients, Vec::new());
        block.visit(&mut found);
        found.1
    };
    assert_eq!(gradients(true), gradients(false));
}

#[test]
fn nothing_is_differentiated_where_nothing_learns() {
    let _alone = alone();
    let block = Block::new(&Device::flex().autodiff()).valid();
    let x = Tensor::<3>::ones([1, 4, 8], &Device::flex());
    let out = recomputed(&block, x.clone(), None, Block::forward);
    assert!(!out.is_autodiff());
    out.into_data()
        .assert_eq(&block.forward(x).into_data(), true);
}

#[test]
fn draws_repeat_and_what_comes_after_differs() {
    let _alone = alone();
    let device = Device::flex();
    device.seed(6);
    let draws = Draws::new(&device);
    let draw = || {
        let drawn = Tensor::<1>::random([4], Distribution::Default, &device);
        drawn.into_data().iter::<f32>().collect::<Vec<_>>()
    };
    let first = draws.during(draw);
    let after = draw();
    let second = draws.during(draw);
    assert_eq!(first, second);
    assert_ne!(first, after);
    assert_ne!(after, draw());
}
