//! Products in tiles: a panel of packed columns meets a few rows at a time in the registers of AVX-512.

use std::ops::Range;

use rayon::prelude::*;

use super::matrix::Threads;

/// Numbers of 32 bits in a vector.
pub const LANES: usize = 16;
/// Rows and vectors of columns of a tile: its sums fill 24 of 32 registers.
pub const ROWS: usize = 8;
pub const VECTORS: usize = 3;
/// Columns of a panel.
pub const COLUMNS: usize = VECTORS * LANES;
/// Tasks for each thread, so that none waits long for another.
const TASKS: usize = 4;
/// Tiles of rows in a task at least: what a panel costs to be packed, it must earn.
const TILES: usize = 8;

/// Whether the processor has the vectors; what multiplies in them asks for its own instruction besides.
pub fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
}

/// The lowest `len` of sixteen lanes.
#[inline]
pub fn mask(len: usize) -> u16 {
    u16::MAX.checked_shr(16 - len as u32).unwrap_or(0)
}

/// Runs `task` for rows and the first column of a panel, until each row has met each panel once.
pub fn share(
    [rows, columns]: [usize; 2],
    threads: Threads,
    task: impl Fn(Range<usize>, usize) + Send + Sync,
) {
    let panels = columns.div_ceil(COLUMNS);
    let tiles = rows.div_ceil(ROWS);
    let blocks = match threads {
        Threads::One => 1,
        Threads::All => {
            let wanted = (TASKS * rayon::current_num_threads()).div_ceil(panels.max(1));
            wanted.clamp(1, (tiles / TILES).max(1))
        }
    };
    let block = tiles.div_ceil(blocks) * ROWS;
    let task = |index: usize| {
        let (panel, block_index) = (index / blocks, index % blocks);
        let rows = (block_index * block).min(rows)..((block_index + 1) * block).min(rows);
        task(rows, panel * COLUMNS);
    };
    match threads {
        Threads::One => (0..panels * blocks).for_each(task),
        Threads::All => (0..panels * blocks).into_par_iter().for_each(task),
    }
}

/// The vectors that a panel from column `first` on has.
pub fn vectors(columns: usize, first: usize) -> usize {
    (columns - first).min(COLUMNS).div_ceil(LANES)
}
