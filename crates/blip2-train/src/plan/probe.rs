//! How fast the machine at hand is: the operations of a plan, each done once or twice.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use blip2_kernels::{Activation, AdamWStep, LayerNorm, Products, attention, linear, tied_logits};
use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, FloatDType, Tensor};

use super::work::{After, Attention, F32, Layout, Operation, Precision, Product};

/// The most that one try of an operation computes; larger ones are cut, for their speed is the same.
const FLOPS: f64 = 4e8;
/// The most bytes that one try of a pass moves: what is larger comes fresh from the system each time, which
/// a step's tensors seldom do.
const BYTES: usize = 16 << 20;
/// The most numbers of a weight that is made for a try.
const NUMBERS: usize = 1 << 22;
/// Moves more than caches hold, and asks for no memory.
const UPDATE: Operation = Operation::Update { numbers: NUMBERS };
/// Tries of an operation, after one that warms up; the fastest counts.
const TRIES: usize = 3;
/// After so long, what was not tried yet is taken from what was.
const PATIENCE: Duration = Duration::from_millis(2300);

/// The speed of a machine.
#[derive(Debug, Clone)]
pub struct Speed {
    seconds: HashMap<Operation, f64>,
    /// Floating-point operations a second of large products in f32.
    pub f32_flops: f64,
    /// The same in bf16.
    pub bf16_flops: f64,
    /// Bytes a second of a pass over more than the caches hold.
    pub bandwidth: f64,
    /// Seconds that autodiff takes for an operation beside its work.
    pub overhead: f64,
}

impl Speed {
    /// Measures `operations` (and how often each is done) on `device`.
    pub fn measure(device: &Device, operations: &BTreeMap<Operation, usize>) -> Self {
        let started = Instant::now();
        let device = &device.clone().inner();
        let rate = |precision| {
            let large = Product {
                rows: 512,
                inner: 640,
                columns: 640,
                precision,
                weight_bits: 32,
                layout: Layout::Plain,
                after: After::Nothing,
            };
            large.flops() / once(&Operation::Product(large), device)
        };
        let mut speed = Self {
            seconds: HashMap::new(),
            f32_flops: rate(Precision::F32),
            bf16_flops: rate(Precision::Bf16),
            bandwidth: UPDATE.bytes() / once(&UPDATE, device),
            overhead: overhead(device),
        };
        // What matters most comes first.
        let mut by_weight: Vec<(&Operation, f64)> = operations
            .iter()
            .map(|(operation, &count)| (operation, speed.guess(operation) * count as f64))
            .collect();
        by_weight.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (operation, _) in by_weight {
            if started.elapsed() > PATIENCE {
                break;
            }
            let seconds = once(operation, device);
            speed.seconds.insert(*operation, seconds);
        }
        speed
    }

    /// Seconds of an operation.
    pub fn seconds(&self, operation: &Operation) -> f64 {
        let measured = self.seconds.get(operation).copied();
        measured.unwrap_or_else(|| self.guess(operation))
    }

    /// By arithmetic alone.
    pub fn compute_seconds(&self, operation: &Operation) -> f64 {
        let rate = match operation {
            Operation::Product(Product {
                precision: Precision::Bf16,
                ..
            }) => self.bf16_flops,
            _ => self.f32_flops,
        };
        operation.flops() / rate
    }

    /// By memory alone.
    pub fn bandwidth_seconds(&self, operation: &Operation) -> f64 {
        operation.bytes() / self.bandwidth
    }

    fn guess(&self, operation: &Operation) -> f64 {
        self.compute_seconds(operation)
            .max(self.bandwidth_seconds(operation))
    }
}

/// The fastest of a few tries.
fn fastest(mut work: impl FnMut()) -> f64 {
    work();
    let tries = (0..TRIES).map(|_| {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64()
    });
    tries.fold(f64::INFINITY, f64::min)
}

fn ones<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::ones(shape, device)
}

/// Seconds of one operation, or of a part of it, scaled up.
fn once(operation: &Operation, device: &Device) -> f64 {
    match *operation {
        Operation::Product(whole) => {
            let cut = cut(&whole);
            whole.flops() / cut.flops() * product(&cut, device)
        }
        Operation::Attention(whole) => {
            let fitting = FLOPS / 2.0 * whole.batch as f64 / whole.flops();
            let batch = (fitting as usize).clamp(1, whole.batch);
            let seconds = attends(&Attention { batch, ..whole }, device);
            seconds * whole.batch as f64 / batch as f64
        }
        Operation::Pass { bytes } => {
            let fewer = bytes.min(BYTES);
            let rows = (fewer / (2 * F32 * WIDTH)).max(1);
            let norm = LayerNorm::new(WIDTH, 1e-5, device);
            let x = ones([rows, WIDTH], device);
            let seconds = fastest(|| drop(norm.forward(x.clone())));
            seconds * bytes as f64 / (rows * 2 * F32 * WIDTH) as f64
        }
        Operation::Update { numbers } => {
            let fewer = numbers.min(NUMBERS);
            let grad = ones([fewer], device);
            let mut state = Some((
                grad.clone().mul_scalar(2.0),
                [0.5, 0.5].map(|x| grad.clone() * x),
            ));
            let step = AdamWStep {
                lr: 1e-6,
                betas: [0.9, 0.99],
                eps: 1e-8,
                weight_decay: 0.0,
                time: 1,
            };
            let seconds = fastest(|| {
                if let Some((weight, moments)) = state.take() {
                    state = Some(step.apply(weight, grad.clone(), moments));
                }
            });
            seconds * numbers as f64 / fewer as f64
        }
    }
}

/// Channels of what a pass is tried on.
const WIDTH: usize = 512;

/// A product of fewer rows and columns, if it is large.
fn cut(product: &Product) -> Product {
    let inner = product.inner;
    let columns = product.columns.min((NUMBERS / inner).max(64));
    let fitting = FLOPS / (2.0 * inner as f64 * columns as f64);
    Product {
        rows: product.rows.min((fitting as usize).max(64)),
        columns,
        ..*product
    }
}

fn product(product: &Product, device: &Device) -> f64 {
    let &Product {
        rows,
        inner,
        columns,
        precision,
        weight_bits,
        layout,
        after,
    } = product;
    let kept = |weight: Tensor<2>| match weight_bits {
        // Eight bits are widened much as sixteen are.
        0..32 => weight.cast(FloatDType::BF16),
        _ => weight,
    };
    let products = match precision {
        Precision::F32 => Products::F32,
        Precision::Bf16 => Products::BF16,
    };
    if layout == Layout::Transposed && precision == Precision::F32 {
        let (x, embedding) = (
            ones([rows, inner], device),
            kept(ones([columns, inner], device)),
        );
        return fastest(|| drop(tied_logits(x.clone(), embedding.clone())));
    }
    let layer = Linear {
        weight: Param::from_tensor(kept(ones([inner, columns], device))),
        bias: (after != After::Nothing).then(|| Param::from_tensor(ones([columns], device))),
    };
    let activation = match after {
        After::Nothing | After::Bias => Activation::None,
        After::Gelu => Activation::Gelu,
        After::Relu => Activation::Relu,
    };
    let x = ones([1, rows, inner], device);
    products.during(|| fastest(|| drop(linear(x.clone(), &layer, activation))))
}

fn attends(shape: &Attention, device: &Device) -> f64 {
    let &Attention {
        batch,
        heads,
        queries,
        keys,
        head_dim,
        backward,
    } = shape;
    let width = heads * head_dim;
    let (query, key) = (
        ones([batch, queries, width], device),
        ones([batch, keys, width], device),
    );
    let forward = fastest(|| {
        drop(attention(
            query.clone(),
            key.clone(),
            key.clone(),
            None,
            heads,
            None,
        ));
    });
    if !backward {
        return forward;
    }
    let tracked = |x: &Tensor<3>| Tensor::from_inner(x.clone()).require_grad();
    let both = fastest(|| {
        let (query, key, value) = (tracked(&query), tracked(&key), tracked(&key));
        let out = attention(query, key, value, None, heads, None);
        drop(out.sum().backward());
    });
    (both - forward).max(forward)
}

/// What autodiff adds to a forward and a backward pass, for each of the two.
fn overhead(device: &Device) -> f64 {
    const LAYERS: usize = 32;
    let learns = device.clone().autodiff();
    let norm = LayerNorm::new(8, 1e-5, &learns);
    let x = Tensor::<2>::ones([1, 8], &learns);
    let seconds = fastest(|| {
        let out = (0..LAYERS).fold(x.clone(), |x, _| norm.forward(x));
        drop(out.sum().backward());
    });
    seconds / (2 * LAYERS) as f64
}
