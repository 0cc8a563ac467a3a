//! Memory for a parameter in large pages: the system hands out small ones a fault at a time, which takes
//! longer than reading a weight into them.

/// Zeros, for which the system is asked for large pages where it has them on request.
pub(super) fn zeros<E: Copy + Default>(count: usize) -> Vec<E> {
    // Zeros of the allocator are not touched before they are written to.
    let numbers = vec![E::default(); count];
    ask(&numbers);
    numbers
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a call of the system")]
fn ask<E>(numbers: &[E]) {
    /// Smaller ones share their pages with others anyhow.
    const LEAST: usize = 1 << 20;
    const PAGE: usize = 1 << 21;
    let range = numbers.as_ptr_range();
    let (start, end) = (range.start as usize, range.end as usize);
    if end - start < LEAST {
        return;
    }
    // Outwards, for what lies at the edges is in most cases the next weight.
    let (start, end) = (start / PAGE * PAGE, end.next_multiple_of(PAGE));
    // SAFETY: this is advice. It changes neither what is mapped nor what is stored, wherever the range
    // reaches; a system that does not take it says so, and nothing is lost.
    unsafe {
        libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn ask<E>(_numbers: &[E]) {}
