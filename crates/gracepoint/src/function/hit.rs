//! A hit: a function begins or ends, and the operations that want it are called.
//!
//! Whoever comes here is inside a read section of `TRACE` and has set the thread's guard; the argument that what is
//! loaded here is not freed meanwhile is in `ops.rs`.

use super::ops::{self, Op};

/// A function begins or ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit {
    pub(crate) id: u32,
    /// Where the return address lies.
    pub(crate) frame: usize,
    pub(crate) exit: bool,
}

/// What a trampoline calls.
///
/// # Safety
/// A read section of `TRACE` is open.
#[inline(always)]
#[cfg_attr(gp_branch, allow(dead_code, reason = "there are no trampolines"))]
pub(crate) unsafe fn run_from_trampoline(hit: &Hit) {
    // SAFETY: the caller's promise.
    unsafe {
        ops::each(hit.id, |op| {
            if op.apart {
                call_apart(op, hit);
            } else {
                op.call(hit);
            }
        });
    }
}

/// Out of line and with everything kept that the traced function may have in use.
///
/// # Safety
/// The operation is one of the published ones, in a read section.
#[inline(never)]
#[cfg_attr(gp_branch, allow(dead_code, reason = "there are no trampolines"))]
unsafe fn call_apart(op: &Op, hit: &Hit) {
    super::apart(|| {
        let _errno = Errno::keep();
        // SAFETY: the caller's promise.
        unsafe { op.call(hit) };
    });
}

/// Where the function above is.
#[cfg(not(gp_branch))]
pub(super) fn apart_address() -> usize {
    call_apart as unsafe fn(&'static Op, &'static Hit) as usize
}

/// What a function with the attribute calls.
pub(crate) fn run(hit: &Hit) {
    let section = crate::key::TRACE.read();
    let entered = super::with_guard(|guard| {
        // A place on this stack, as the trampolines keep. See there why a lower one does not count.
        let here = &raw const section as usize;
        let there = guard.load(std::sync::atomic::Ordering::Relaxed);
        let free = there == 0 || there < here;
        if free {
            guard.store(here, std::sync::atomic::Ordering::Relaxed);
        }
        free
    });
    if !entered {
        super::missed_hits::count();
        return;
    }
    // SAFETY: the section is open.
    unsafe { ops::each(hit.id, |op| op.call(hit)) };
    super::with_guard(|guard| guard.store(0, std::sync::atomic::Ordering::Relaxed));
}

/// The error number as the program left it: a function may begin between a system call and the look at its error.
struct Errno(libc::c_int);

impl Errno {
    fn keep() -> Errno {
        // SAFETY: the calling thread's own word.
        Errno(unsafe { *libc::__errno_location() })
    }
}

impl Drop for Errno {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = self.0 };
    }
}
