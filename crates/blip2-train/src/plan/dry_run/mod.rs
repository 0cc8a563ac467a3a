//! A step without numbers: the operations of `blip2-kernels` on tensors that have a size alone.
//!
//! The tape does what autodiff does: it knows what each operation keeps for its gradient, frees what the
//! last holder lets go, and counts what is alive. So memory is not a formula for each model but follows
//! from one rule for each operation, below, and from the way in which [`towers`](super::towers) calls
//! them, which is that of the modules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::plan::work::{
    After, Attention, Direction, F32, Layout, Operation, Part, Precision, Product, Work,
};

mod again;
mod backward;
mod moves;
mod tensor;
#[cfg(test)]
mod tests;

use again::Again;
pub use tensor::Tensor;
use tensor::{Meter, Storage};

/// Whose operations run: they keep different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// `blip2-kernels` on `flex`: each operation with a gradient of its own.
    Fused,
    /// Chains of Burn's operations, on all other backends: attention weights, dropout masks and widened
    /// weights are kept too.
    Chained,
}

/// A weight of a linear layer.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Its name, by which its gradient is found.
    pub name: String,
    /// Rows.
    pub inputs: usize,
    /// Columns.
    pub outputs: usize,
    /// Bits of a number.
    pub bits: usize,
    /// Whether it gets a gradient.
    pub learns: bool,
}

/// Who gets a gradient.
#[derive(Debug)]
enum To {
    Tensor(usize),
    Parameter(String),
}

/// Where a gradient's numbers are.
#[derive(Debug)]
enum Slope {
    /// In new memory.
    Made(usize),
    /// In that of the result's gradient, which is written over.
    InPlace,
    /// In that of the result's gradient, as it is.
    Passed,
}

#[derive(Debug)]
struct Node {
    part: Part,
    gradients: Vec<(To, Slope)>,
    kept: Vec<Rc<Storage>>,
    operations: Vec<Operation>,
    /// A block that is run again for its gradients.
    again: Option<Again>,
}

/// What was done, what is kept.
#[derive(Debug)]
pub struct Tape {
    /// Whose operations run.
    pub kernels: Kernels,
    /// To which part operations count.
    pub part: Part,
    /// Of products.
    pub precision: Precision,
    /// Whether weights that learn are on the tape.
    recording: bool,
    meter: Rc<Meter>,
    storages: usize,
    work: BTreeMap<Work, usize>,
    nodes: Vec<Node>,
    gradients: HashMap<usize, Rc<Storage>>,
    parameter_gradients: HashMap<String, Rc<Storage>>,
}

impl Tape {
    /// Nothing yet.
    pub fn new(kernels: Kernels) -> Self {
        Self {
            kernels,
            part: Part::VisionBackbone,
            precision: Precision::F32,
            recording: true,
            meter: Rc::default(),
            storages: 0,
            work: BTreeMap::new(),
            nodes: Vec::new(),
            gradients: HashMap::new(),
            parameter_gradients: HashMap::new(),
        }
    }

    /// What was done, and how often.
    pub fn work(&self) -> &BTreeMap<Work, usize> {
        &self.work
    }

    /// The most bytes that were alive at once: kept ones, gradients, and what an operation makes.
    pub fn peak(&self) -> usize {
        self.meter.peak()
    }

    /// Bytes that wait for the backward pass, by the part that keeps them.
    pub fn kept(&self) -> BTreeMap<Part, usize> {
        let (mut seen, mut kept) = (BTreeSet::new(), BTreeMap::new());
        for node in &self.nodes {
            for storage in &node.kept {
                if seen.insert(storage.id) {
                    *kept.entry(node.part).or_default() += storage.bytes;
                }
            }
        }
        kept
    }

    /// The place on the tape.
    fn mark(&self) -> usize {
        self.nodes.len()
    }

    /// Counts an operation.
    pub fn does(&mut self, direction: Direction, operation: Operation) {
        let part = self.part;
        let work = Work {
            part,
            direction,
            operation,
        };
        *self.work.entry(work).or_default() += 1;
    }

    fn forward(&mut self, operation: Operation) {
        self.does(Direction::Forward, operation);
    }

    fn store(&mut self, bytes: usize) -> Rc<Storage> {
        self.storages += 1;
        self.meter.store(self.storages, bytes)
    }

    /// New numbers without a gradient.
    pub fn constant(&mut self, rows: usize, width: usize) -> Tensor {
        Tensor {
            storage: self.store(rows * width * F32),
            rows,
            width,
            node: None,
        }
    }

    /// The numbers of `x`, whose gradient stays on the tape.
    pub fn leaf(&mut self, x: &Tensor) -> Tensor {
        let node = self.node(Vec::new(), Vec::new(), Vec::new());
        Tensor {
            node: Some(node),
            ..x.clone()
        }
    }

    /// A parameter of few rows as a tensor: queries, positions.
    pub fn parameter(&mut self, name: &str, rows: usize, width: usize, learns: bool) -> Tensor {
        // Its numbers are weights, which are counted elsewhere.
        let storage = self.store(0);
        let tensor = Tensor {
            storage,
            rows,
            width,
            node: None,
        };
        if !(learns && self.recording) {
            return tensor;
        }
        let gradient = (To::Parameter(name.to_string()), Slope::Passed);
        let node = self.node(vec![gradient], Vec::new(), Vec::new());
        Tensor {
            node: Some(node),
            ..tensor
        }
    }

    /// The numbers of `x` without its gradient.
    pub fn detached(x: &Tensor) -> Tensor {
        Tensor {
            node: None,
            ..x.clone()
        }
    }

    fn node(
        &mut self,
        gradients: Vec<(To, Slope)>,
        kept: Vec<Rc<Storage>>,
        operations: Vec<Operation>,
    ) -> usize {
        self.nodes.push(Node {
            part: self.part,
            gradients,
            kept,
            operations,
            again: None,
        });
        self.nodes.len() - 1
    }

    /// `activation(x · weight + bias)`. Keeps `x` if the weight learns, and what an activation is applied to.
    pub fn linear(&mut self, x: Tensor, matrix: &Matrix, after: After) -> Tensor {
        let &Matrix {
            inputs,
            outputs,
            bits,
            ..
        } = matrix;
        let learns = matrix.learns && self.recording;
        let product = |rows, inner, columns, layout, precision| {
            Operation::Product(Product {
                rows,
                inner,
                columns,
                precision,
                weight_bits: if layout == Layout::WeightGrad {
                    32
                } else {
                    bits
                },
                layout,
                after: if layout == Layout::Plain {
                    after
                } else {
                    After::Nothing
                },
            })
        };
        let activation = matches!(after, After::Gelu | After::Relu);
        let (rows, precision) = (x.rows, self.precision);
        let before = self.constant(rows, outputs);
        let bytes = before.bytes();
        self.forward(product(rows, inputs, outputs, Layout::Plain, precision));
        if x.node.is_none() && !learns {
            return before;
        }
        let (mut kept, mut operations, mut gradients) = (Vec::new(), Vec::new(), Vec::new());
        let mut out = before;
        if activation {
            let after = self.constant(rows, outputs);
            self.forward(Operation::Pass { bytes: 2 * bytes });
            operations.push(Operation::Pass { bytes: 3 * bytes });
            kept.push(std::mem::replace(&mut out, after).storage);
        }
        if let Some(node) = x.node {
            operations.push(product(
                rows,
                outputs,
                inputs,
                Layout::Transposed,
                precision,
            ));
            gradients.push((To::Tensor(node), Slope::Made(x.bytes())));
            if self.kernels == Kernels::Chained && bits < 32 {
                kept.push(self.store(inputs * outputs * F32));
            }
        }
        if learns {
            let layout = Layout::WeightGrad;
            operations.push(product(inputs, rows, outputs, layout, Precision::F32));
            operations.push(Operation::Pass { bytes });
            let made = Slope::Made((inputs + 1) * outputs * F32);
            gradients.push((To::Parameter(matrix.name.clone()), made));
            kept.push(x.storage);
        }
        out.node = Some(self.node(gradients, kept, operations));
        out
    }

    /// Attention of `heads` parts of the channels in each of `batch` rows. Keeps its inputs and its result.
    pub fn attention(
        &mut self,
        [query, key, value]: [Tensor; 3],
        batch: usize,
        heads: usize,
        dropout: bool,
    ) -> Tensor {
        let (queries, keys) = (query.rows / batch, key.rows / batch);
        let head_dim = query.width / heads;
        let attention = |backward| {
            Operation::Attention(Attention {
                batch,
                heads,
                queries,
                keys,
                head_dim,
                backward,
            })
        };
        let weights = batch * heads * queries * keys * F32;
        let scores = (self.kernels == Kernels::Chained).then(|| self.store(weights));
        let mut out = self.constant(query.rows, query.width);
        self.forward(attention(false));
        let inputs = [&query, &key, &value];
        if inputs.iter().all(|x| x.node.is_none()) {
            return out;
        }
        let gradients = inputs
            .iter()
            .filter_map(|x| Some((To::Tensor(x.node?), Slope::Made(x.bytes()))))
            .collect();
        let mut kept = vec![query.storage, key.storage, value.storage];
        match scores {
            None => kept.extend([
                out.storage.clone(),
                self.store(batch * queries * heads * F32),
            ]),
            Some(scores) => {
                kept.push(scores);
                if dropout {
                    kept.extend([self.store(weights), self.store(weights)]);
                }
            }
        }
        out.node = Some(self.node(gradients, kept, vec![attention(true)]));
        out
    }

    /// Layer norm. Keeps `x`.
    pub fn norm(&mut self, x: Tensor, name: &str, learns: bool) -> Tensor {
        let learns = learns && self.recording;
        let mut out = self.constant(x.rows, x.width);
        let bytes = x.bytes();
        self.forward(Operation::Pass { bytes: 2 * bytes });
        if x.node.is_none() && !learns {
            return out;
        }
        let mut gradients = Vec::new();
        if let Some(node) = x.node {
            gradients.push((To::Tensor(node), Slope::InPlace));
        }
        if learns {
            let made = Slope::Made(2 * x.width * F32);
            gradients.push((To::Parameter(name.to_string()), made));
        }
        let mut kept = vec![x.storage];
        if self.kernels == Kernels::Chained {
            kept.push(self.store(bytes));
        }
        let pass = Operation::Pass { bytes: 3 * bytes };
        out.node = Some(self.node(gradients, kept, vec![pass]));
        out
    }

    /// Dropout in place. Keeps a seed; a chain keeps a mask.
    pub fn dropout(&mut self, x: Tensor, drops: bool) -> Tensor {
        let Some(node) = x.node.filter(|_| drops) else {
            return x;
        };
        let pass = Operation::Pass {
            bytes: 2 * x.bytes(),
        };
        self.forward(pass);
        let kept = match self.kernels {
            Kernels::Fused => Vec::new(),
            Kernels::Chained => vec![self.store(x.bytes())],
        };
        let gradients = vec![(To::Tensor(node), Slope::InPlace)];
        Tensor {
            node: Some(self.node(gradients, kept, vec![pass])),
            ..x
        }
    }

    /// An activation that is no linear layer's. Keeps `x`.
    pub fn activation(&mut self, x: Tensor) -> Tensor {
        let mut out = self.constant(x.rows, x.width);
        let bytes = x.bytes();
        self.forward(Operation::Pass { bytes: 2 * bytes });
        if let Some(node) = x.node {
            let gradients = vec![(To::Tensor(node), Slope::InPlace)];
            let pass = Operation::Pass { bytes: 3 * bytes };
            out.node = Some(self.node(gradients, vec![x.storage], vec![pass]));
        }
        out
    }

    /// `a + b`, in the memory of the one that nobody else holds. Keeps nothing.
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Tensor {
        let bytes = a.bytes();
        self.forward(Operation::Pass { bytes: 3 * bytes });
        let unique = |x: &Tensor| Rc::strong_count(&x.storage) == 1;
        let storage = match (unique(&a), unique(&b)) {
            (true, _) => a.storage.clone(),
            (_, true) => b.storage.clone(),
            _ => self.store(bytes),
        };
        let gradients: Vec<_> = [a.node, b.node]
            .into_iter()
            .flatten()
            .map(|node| (To::Tensor(node), Slope::Passed))
            .collect();
        let learns = !gradients.is_empty();
        Tensor {
            storage,
            rows: a.rows,
            width: a.width,
            node: learns.then(|| self.node(gradients, Vec::new(), Vec::new())),
        }
    }
}
