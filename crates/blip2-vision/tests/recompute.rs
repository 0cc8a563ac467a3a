//! Recomputed blocks under stochastic depth. A program of its own: the backend's random numbers are the
//! process's.

mod fixture;

use blip2_kernels::Draws;
use blip2_vision::{VisionConfig, VisionTransformer};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Gradients, Tensor};
use fixture::Fixture;

/// The gradients of all parameters, in order.
struct Found<'a>(&'a Gradients, Vec<Vec<f32>>);

impl ModuleVisitor for Found<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = param.val().grad(self.0).expect("every parameter learns");
        self.1.push(grad.into_data().iter::<f32>().collect());
    }
}

struct Look;

impl ModuleVisitor for Look {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        param.val();
    }
}

/// The whole graph, with the seeds that recomputation gives each block that drops.
fn whole(module: &VisionTransformer, images: Tensor<4>) -> Tensor<3> {
    let mut embeddings = None;
    // Its blocks draw from another place, and their results are dropped.
    let device = Device::flex().autodiff();
    Draws::new(&device).during(|| {
        module.forward_with_taps(images, &mut |name, tensor| {
            if name == "embeddings" {
                embeddings = Some(tensor.clone());
            }
        })
    });
    let embeddings = embeddings.expect("there are embeddings");
    let blocks = module.blocks().iter().enumerate();
    blocks.fold(embeddings, |hidden, (index, block)| match index {
        // The rate grows from zero.
        0 => block.forward(hidden),
        _ => Draws::new(&device).during(|| block.forward(hidden)),
    })
}

#[test]
fn gradients_are_those_of_the_whole_graph_to_the_bit() {
    let device = Device::flex().autodiff();
    device.seed(1);
    let config = VisionConfig {
        drop_path_rate: 0.3,
        ..Fixture::read("vision/eva.safetensors").config()
    };
    let module = config.init(&device).unwrap();
    module.visit(&mut Look);
    let shape = [16, 3, config.image_size, config.image_size];
    let images = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex());
    let gradients = |recomputed: bool| {
        device.seed(2);
        if recomputed {
            // As `whole` does before its blocks.
            Draws::new(&device).during(|| ());
        }
        let out = match recomputed {
            true => module.forward_recomputed(images.clone()),
            false => whole(&module, images.clone()),
        };
        let loss = out.tanh().square().mean();
        let gradients = loss.backward();
        let mut found = Found(&gradients, vec![vec![loss.into_scalar::<f32>()]]);
        module.visit(&mut found);
        found.1
    };
    let (whole, recomputed) = (gradients(false), gradients(true));
    assert!(
        whole
            .iter()
            .all(|numbers| numbers.iter().any(|&number| number != 0.0))
    );
    assert_eq!(whole, recomputed);
    let another = {
        device.seed(3);
        let out = module.forward_recomputed(images.clone());
        out.tanh().square().mean().into_scalar::<f32>()
    };
    assert_ne!(another, recomputed[0][0], "nothing was dropped");
}
