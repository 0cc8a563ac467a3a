//! Operations that move numbers, or know their gradient.

use super::tensor::Tensor;
use super::{Slope, Tape, To};
use crate::plan::work::{F32, Operation};

impl Tape {
    /// `rows` rows of an embedding of `rows_of_all`, whose gradient is as large as the embedding.
    pub fn lookup(
        &mut self,
        name: &str,
        rows: usize,
        width: usize,
        rows_of_all: usize,
        learns: bool,
    ) -> Tensor {
        let mut out = self.constant(rows, width);
        let bytes = out.bytes();
        self.forward(Operation::Pass { bytes: 2 * bytes });
        if learns && self.recording {
            let all = rows_of_all * width * F32;
            let gradients = vec![(To::Parameter(name.to_string()), Slope::Made(all))];
            let pass = Operation::Pass { bytes: bytes + all };
            out.node = Some(self.node(gradients, Vec::new(), vec![pass]));
        }
        out
    }

    /// Rows and channels of `inputs` in another order, some of them, or some again. Keeps nothing.
    pub fn copied(&mut self, inputs: &[&Tensor], rows: usize, width: usize) -> Tensor {
        let mut out = self.constant(rows, width);
        let bytes = out.bytes();
        self.forward(Operation::Pass { bytes: 2 * bytes });
        self.from(&mut out, inputs);
        out
    }

    /// Channels of `x`, looked at where they are.
    pub fn channels(&mut self, x: &Tensor, width: usize) -> Tensor {
        let mut out = Tensor { width, ..x.clone() };
        out.node = None;
        self.from(&mut out, &[x]);
        out
    }

    fn from(&mut self, out: &mut Tensor, inputs: &[&Tensor]) {
        let (mut gradients, mut operations) = (Vec::new(), Vec::new());
        for x in inputs {
            if let Some(node) = x.node {
                gradients.push((To::Tensor(node), Slope::Made(x.bytes())));
                operations.push(Operation::Pass {
                    bytes: 2 * x.bytes(),
                });
            }
        }
        if !gradients.is_empty() {
            out.node = Some(self.node(gradients, Vec::new(), operations));
        }
    }

    /// A loss whose gradients for `x` and `parameters` (name, bytes) are known with it; it keeps those.
    pub fn known_gradient(&mut self, x: &Tensor, parameters: Vec<(String, usize)>) -> Tensor {
        let mut loss = self.constant(1, 1);
        let bytes = x.bytes();
        let (mut kept, mut gradients) = (Vec::new(), Vec::new());
        if let Some(node) = x.node {
            kept.push(self.store(bytes));
            gradients.push((To::Tensor(node), Slope::Made(bytes)));
        }
        for (name, bytes) in parameters {
            kept.push(self.store(bytes));
            gradients.push((To::Parameter(name), Slope::Made(bytes)));
        }
        let pass = Operation::Pass { bytes: 3 * bytes };
        self.forward(pass);
        loss.node = Some(self.node(gradients, kept, vec![pass]));
        loss
    }
}
