//! Cross-entropy of logits, in place.

use rayon::prelude::*;

use super::vector::{Vectorized, exp, max, sum, vectorized};

struct Row<'a> {
    /// Becomes the slopes.
    logits: &'a mut [f32],
    id: usize,
    loss: &'a mut f32,
}

impl Vectorized for Row<'_> {
    #[inline(always)]
    fn run(self) {
        let max = max(self.logits);
        let scored = self.logits[self.id] - max;
        for logit in self.logits.iter_mut() {
            *logit = exp(*logit - max);
        }
        let total = sum(self.logits.len(), |i| self.logits[i]);
        let rate = 1.0 / total;
        for probability in self.logits.iter_mut() {
            *probability *= rate;
        }
        self.logits[self.id] -= 1.0;
        *self.loss = total.ln() - scored;
    }
}

/// The summed cross-entropy of the rows of `logits` against `ids`; turns the logits into its slopes.
pub fn loss(logits: &mut [f32], ids: &[usize]) -> f32 {
    let vocabulary = logits.len() / ids.len();
    let mut losses = vec![0.0; ids.len()];
    logits
        .par_chunks_mut(vocabulary)
        .zip(ids)
        .zip(&mut losses)
        .for_each(|((logits, &id), loss)| vectorized(Row { logits, id, loss }));
    losses.iter().sum()
}
