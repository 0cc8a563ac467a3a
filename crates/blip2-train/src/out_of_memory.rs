//! What is said where memory runs out in spite of the estimate.
//!
//! On a CPU an allocation fails: [`Allocator`] then ends the process with one line, in the place of Rust's
//! abort. On other devices Burn panics: [`install`] sees to it that such a panic is that line too.
//! Checkpoints are safe in both cases, for they get their names when they are whole.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::RwLock;

static LINE: RwLock<&'static str> = RwLock::new("out of memory");

/// Words of backends and drivers for memory that ran out.
const SIGNS: [&str; 4] = [
    "out of memory",
    "OutOfMemory",
    "OUT_OF_MEMORY",
    "not enough memory",
];

/// Says what is to be said from now on if memory runs out.
pub fn during(line: &str) {
    if let Ok(mut current) = LINE.write() {
        // A few lines in the life of a process.
        *current = Box::leak(line.to_string().into_boxed_str());
    }
}

/// Writes the line without asking for memory, and ends the process as a failed run.
fn end() -> ! {
    let line = LINE.try_read().map_or("out of memory", |line| *line);
    let mut stderr = std::io::stderr();
    for piece in ["error: ", line, "\n"] {
        let _ = stderr.write_all(piece.as_bytes());
    }
    std::process::exit(1)
}

/// Turns panics for want of memory into the line.
pub fn install() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if is_why(panic) {
            end();
        }
        before(panic);
    }));
}

/// Whether `panic` is for want of memory.
pub(crate) fn is_why(panic: &std::panic::PanicHookInfo<'_>) -> bool {
    panic
        .payload_as_str()
        .is_some_and(|text| SIGNS.iter().any(|sign| text.contains(sign)))
}

/// The system's allocator, which ends the process with a line where it has no more memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

fn checked(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() {
        end();
    }
    pointer
}

#[allow(
    unsafe_code,
    reason = "an allocator can't be written otherwise; all four pass on what they get"
)]
// SAFETY: every method is the system's, whose result is given back unless it is null.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        checked(unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        checked(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        checked(unsafe { System.realloc(pointer, layout, size) })
    }
}
