//! What each operation keeps.

use super::*;

fn matrix(inputs: usize, outputs: usize, learns: bool) -> Matrix {
    Matrix {
        name: format!("{inputs} {outputs}"),
        inputs,
        outputs,
        bits: 32,
        learns,
    }
}

/// What `LinearBackward` keeps: its input for the weight's gradient alone, and what an activation is
/// applied to.
#[test]
fn linear_layers_keep_what_their_gradients_need() {
    for (learns, after, kept) in [
        (false, After::Bias, 0),
        (false, After::Relu, 3 * 5),
        (true, After::Bias, 3 * 4),
        (true, After::Gelu, 3 * 4 + 3 * 5),
    ] {
        let mut tape = Tape::new(Kernels::Fused);
        let x = tape.constant(3, 4);
        let x = tape.leaf(&x);
        tape.linear(x, &matrix(4, 5, learns), after);
        assert_eq!(tape.kept().values().sum::<usize>(), kept * F32);
    }
}

#[test]
fn nothing_is_kept_where_nothing_learns() {
    let mut tape = Tape::new(Kernels::Fused);
    let x = tape.constant(3, 4);
    let x = tape.linear(x, &matrix(4, 8, false), After::Gelu);
    let x = tape.norm(x, "norm", false);
    let x = tape.attention([x.clone(), x.clone(), x], 1, 2, true);
    assert!(tape.kept().is_empty());
    // The input of attention and its output are the most that lives at once.
    assert_eq!(tape.peak(), 2 * 3 * 8 * F32);
    drop(x);
}

#[test]
fn a_tensor_that_two_operations_keep_counts_once() {
    let mut tape = Tape::new(Kernels::Fused);
    let x = tape.constant(3, 4);
    let x = tape.leaf(&x);
    let a = tape.linear(x.clone(), &matrix(4, 5, true), After::Bias);
    let b = tape.linear(x, &matrix(4, 6, true), After::Bias);
    assert_eq!(tape.kept().values().sum::<usize>(), 3 * 4 * F32);
    drop((a, b));
}

#[test]
fn gradients_of_weights_stay_and_those_between_go() {
    let mut tape = Tape::new(Kernels::Fused);
    let x = tape.constant(2, 4);
    let x = tape.linear(x, &matrix(4, 4, true), After::Nothing);
    let x = tape.linear(x, &matrix(4, 4, true), After::Nothing);
    tape.backward(&x, 0);
    let weights: usize = tape
        .parameter_gradients
        .values()
        .map(|grad| grad.bytes)
        .sum();
    // One name, one weight: its two gradients are added up.
    assert_eq!(weights, 5 * 4 * F32);
    assert!(tape.gradients.is_empty() && tape.nodes.is_empty());
}
