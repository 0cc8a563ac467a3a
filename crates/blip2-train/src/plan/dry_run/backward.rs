//! The backward pass.

use std::rc::Rc;

use super::tensor::{Storage, Tensor};
use super::{Slope, Tape, To};
use crate::plan::work::{Direction, Operation};

impl Tape {
    /// Goes back from `from` to the place `mark`; leaves' gradients stay.
    pub fn backward(&mut self, from: &Tensor, mark: usize) {
        let Some(last) = from.node else { return };
        let slope = self.store(from.bytes());
        self.back(last, slope, mark);
    }

    /// As [`backward`](Self::backward), from a result whose gradient is there.
    pub(super) fn back(&mut self, last: usize, slope: Rc<Storage>, mark: usize) {
        self.gradients.insert(last, slope);
        let (part, precision) = (self.part, self.precision);
        while self.nodes.len() > mark {
            let index = self.nodes.len() - 1;
            let Some(node) = self.nodes.pop() else { break };
            if node.gradients.is_empty() && node.again.is_none() {
                // A leaf's stays.
                continue;
            }
            let Some(slope) = self.gradients.remove(&index) else {
                continue;
            };
            self.part = node.part;
            if let Some(again) = node.again {
                self.run_again(again, node.gradients, slope);
                continue;
            }
            for &operation in &node.operations {
                self.does(Direction::Backward, operation);
            }
            for (to, gradient) in node.gradients {
                let gradient = match gradient {
                    Slope::Made(bytes) => self.store(bytes),
                    // Somebody else may read it still: then it is copied.
                    Slope::InPlace if Rc::strong_count(&slope) > 1 => self.store(slope.bytes),
                    Slope::InPlace | Slope::Passed => slope.clone(),
                };
                self.register(to, gradient);
            }
        }
        (self.part, self.precision) = (part, precision);
    }

    /// The gradient of a leaf, to go on with.
    pub(super) fn gradient_of(&mut self, leaf: &Tensor) -> Tensor {
        let gradient = leaf.node.and_then(|node| self.gradients.remove(&node));
        Tensor {
            storage: gradient.unwrap_or_else(|| self.store(leaf.bytes())),
            rows: leaf.rows,
            width: leaf.width,
            node: None,
        }
    }

    pub(super) fn register(&mut self, to: To, gradient: Rc<Storage>) {
        let bytes = gradient.bytes;
        let before = match &to {
            To::Tensor(node) => self.gradients.remove(node),
            To::Parameter(name) => self.parameter_gradients.remove(name),
        };
        let sum = match before {
            None => gradient,
            Some(before) => {
                let pass = Operation::Pass { bytes: 3 * bytes };
                self.does(Direction::Backward, pass);
                let alone = [&gradient, &before].map(|x| Rc::strong_count(x) == 1);
                match alone {
                    [false, false] => self.store(bytes),
                    [true, _] => gradient,
                    [false, true] => before,
                }
            }
        };
        match to {
            To::Tensor(node) => self.gradients.insert(node, sum),
            To::Parameter(name) => self.parameter_gradients.insert(name, sum),
        };
    }
}
