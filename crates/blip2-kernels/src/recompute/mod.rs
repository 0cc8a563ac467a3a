//! Blocks of a model whose graph is made again for the backward pass.
//!
//! Autodiff keeps what the backward pass of every block needs until that pass runs: about sixteen numbers
//! a channel and token of a transformer. A block that is recomputed keeps its input alone. Its graph is
//! made again when its turn comes, and is gone before that of the block below: a second forward pass for
//! the memory of one block. Burn's own checkpointing chooses operation by operation and knows no blocks.

mod draws;
#[cfg(any(feature = "flex", feature = "cube", feature = "remote"))]
mod operation;

use burn::module::Module;
use burn::tensor::Tensor;

pub use draws::Draws;

/// `forward(block, x)`, with the gradients that it has for `x` and for the parameters of `block`, and
/// without its graph. Where nothing needs a gradient, and on backends that none of the features `flex`,
/// `cube` and `remote` names, it is `forward(block, x)` as it is.
///
/// `forward` runs twice. If it draws random numbers, `draws` must say so, that both runs draw the same.
/// What it holds besides must be constants: gradients go to `x` and `block`.
///
/// # Shapes
/// - `x`: `[batch, tokens, width]`
/// - returns: what `forward` returns
pub fn recomputed<M, F>(block: &M, x: Tensor<3>, draws: Option<Draws>, forward: F) -> Tensor<3>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<3>) -> Tensor<3> + Send + 'static,
{
    #[cfg(any(feature = "flex", feature = "cube", feature = "remote"))]
    if let Some(nodes) = operation::nodes(block, &x) {
        return operation::recomputed(block, x, draws, forward, nodes);
    }
    match draws {
        Some(draws) => draws.during(|| forward(block, x)),
        None => forward(block, x),
    }
}
