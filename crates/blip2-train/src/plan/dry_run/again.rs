//! Blocks that are recomputed: `blip2_kernels::recomputed`.

use std::fmt;
use std::rc::Rc;

use super::tensor::{Storage, Tensor};
use super::{Slope, Tape, To};

/// What a block does.
pub type Block = Box<dyn Fn(&mut Tape, Tensor) -> Tensor>;

/// A block and what it read.
pub struct Again {
    input: Tensor,
    block: Block,
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Again")
    }
}

impl Tape {
    /// What `run` makes, of which nothing is kept.
    pub fn unrecorded(&mut self, run: impl FnOnce(&mut Self) -> Tensor) -> Tensor {
        let recording = std::mem::replace(&mut self.recording, false);
        let out = run(self);
        self.recording = recording;
        out
    }

    /// `out`, which `block` made of `x` without being recorded; if it `learns` or `x` does, it is run again
    /// for the gradients. Keeps `x`.
    pub fn recomputed(&mut self, x: Tensor, out: Tensor, learns: bool, block: Block) -> Tensor {
        if x.node.is_none() && !learns {
            return out;
        }
        let gradients = x.node.map(|node| (To::Tensor(node), Slope::Passed));
        // The operation has a node even where the block's weights alone learn.
        let gradients = gradients.into_iter().collect();
        let node = self.node(gradients, vec![x.storage.clone()], Vec::new());
        let input = Self::detached(&x);
        self.nodes[node].again = Some(Again { input, block });
        Tensor {
            node: Some(node),
            ..out
        }
    }

    pub(super) fn run_again(
        &mut self,
        again: Again,
        gradients: Vec<(To, Slope)>,
        slope: Rc<Storage>,
    ) {
        let mark = self.mark();
        let input = self.leaf(&again.input);
        let Again { input: kept, block } = again;
        drop(kept);
        let out = block(self, input.clone());
        if let Some(last) = out.node {
            drop(out);
            self.back(last, slope, mark);
        }
        let gradient = self.gradient_of(&input);
        for (to, _) in gradients {
            self.register(to, gradient.storage.clone());
        }
    }
}
