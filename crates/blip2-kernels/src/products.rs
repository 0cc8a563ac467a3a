//! In what precision products are made.

use std::cell::Cell;

/// The precision of the numbers that are multiplied. Sums, and everything else, are f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Products {
    /// As they are.
    #[default]
    F32,
    /// Both sides are rounded to bfloat16, where the processor multiplies it (AVX-512 BF16); elsewhere, and
    /// for a few rows with weights that are kept in f32, as [`F32`](Self::F32).
    BF16,
    /// In linear layers, each row and each column of weights is rounded to multiples of its largest number
    /// over 127, where the processor multiplies eight bits (AVX-512 VNNI) and there are more than a few rows;
    /// gradients and all else as [`BF16`](Self::BF16).
    INT8,
}

thread_local! {
    static PRODUCTS: Cell<Products> = const { Cell::new(Products::F32) };
}

impl Products {
    /// Runs `work` with products in this precision, those of their gradients too: linear layers, logits
    /// and attention. What is kept is f32: weights that are trained, gradients, norms, exponentials.
    ///
    /// It is what `torch.autocast` does, but for the results of products, which that rounds too.
    pub fn during<R>(self, work: impl FnOnce() -> R) -> R {
        /// Puts back what was before, even if `work` panics.
        struct Restore(Products);
        impl Drop for Restore {
            fn drop(&mut self) {
                PRODUCTS.set(self.0);
            }
        }
        let _restore = Restore(PRODUCTS.replace(self));
        work()
    }

    /// What [`during`](Self::during) has set for this thread.
    #[cfg(any(feature = "flex", feature = "cube"))]
    pub(crate) fn current() -> Self {
        PRODUCTS.get()
    }
}
