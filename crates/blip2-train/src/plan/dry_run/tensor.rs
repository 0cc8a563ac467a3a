//! Numbers that are not there: what counts is how many, and who holds them.

use std::cell::Cell;
use std::rc::Rc;

use super::super::work::F32;

/// Bytes that are alive, and the most that ever were.
#[derive(Debug, Default)]
pub(super) struct Meter {
    live: Cell<usize>,
    peak: Cell<usize>,
}

impl Meter {
    /// New memory.
    pub fn store(self: &Rc<Self>, id: usize, bytes: usize) -> Rc<Storage> {
        let live = self.live.get() + bytes;
        self.live.set(live);
        self.peak.set(self.peak.get().max(live));
        Rc::new(Storage {
            id,
            bytes,
            meter: self.clone(),
        })
    }

    pub fn peak(&self) -> usize {
        self.peak.get()
    }
}

/// Memory of the device, until its last holder is gone.
#[derive(Debug)]
pub(super) struct Storage {
    pub id: usize,
    pub bytes: usize,
    meter: Rc<Meter>,
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.meter.live.set(self.meter.live.get() - self.bytes);
    }
}

/// `[rows, width]` numbers of 32 bits; rows are those of the batch times tokens.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub(super) storage: Rc<Storage>,
    /// Rows of the batch times tokens.
    pub rows: usize,
    /// Channels.
    pub width: usize,
    /// What made it, if there is a gradient for it.
    pub(super) node: Option<usize>,
}

impl Tensor {
    pub(super) fn bytes(&self) -> usize {
        self.rows * self.width * F32
    }
}
