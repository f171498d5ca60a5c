//! A hit: a function begins or ends, and the operations that want it are called.
//!
//! Whoever calls them is inside a read section of `TRACE` and has set the thread's guard; the argument that what is
//! loaded here is not freed meanwhile is in `ops.rs`. Functions with sleds are hit in `arch/trampoline_x86_64.s`, those with
//! the attribute here.

use super::ops;
use std::sync::atomic::Ordering::Relaxed;

/// A function begins or ends.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct FunctionCall {
    /// Where the return address lies; with the attribute where its [`Call`](super::Call) does, and [`GUARD`].
    pub(crate) frame: usize,
    pub(crate) id: u32,
    pub(crate) depth: u32,
}

/// A bit of `FunctionCall::frame`.
pub(crate) const GUARD: usize = 1;

/// `FunctionCall::depth` where it is not noted.
pub(crate) const NO_DEPTH: u32 = u32::MAX;

#[cfg(not(gp_branch))]
const _: () = {
    // As the trampoline writes it.
    assert!(std::mem::offset_of!(FunctionCall, frame) == 0);
    assert!(std::mem::offset_of!(FunctionCall, id) == 8);
    assert!(std::mem::offset_of!(FunctionCall, depth) == 12);
};

impl FunctionCall {
    /// The function's number in this program; [`function_name`](crate::function_name) says what it is called.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Address of the call's place on the stack: the same at its beginning and end, and lower in calls that it makes on
    /// the same stack.
    #[must_use]
    pub fn frame(&self) -> usize {
        self.frame & !GUARD
    }

    /// How many calls of functions of the same [`FunctionOps`](crate::FunctionOps) are around it, where that is noted
    /// ([`with_depth`](crate::FunctionOps::with_depth)), up to 253.
    #[must_use]
    pub fn depth(&self) -> Option<u32> {
        (self.depth != NO_DEPTH).then_some(self.depth)
    }
}

/// What a function with the attribute calls.
pub(crate) fn run<const EXIT: bool>(call: &FunctionCall) {
    let section = crate::key::TRACE.read();
    let _errno = Errno::keep();
    let entered = super::with_guard(|guard| {
        // A place on this stack, as the trampolines keep. See there why a lower one does not count.
        let here = &raw const section as usize;
        let there = guard.load(Relaxed);
        let free = there == 0 || (there < here && !on_signal_stack());
        if free {
            guard.store(here, Relaxed);
        }
        free
    });
    if !entered {
        super::missed_hits::count();
        return;
    }
    // SAFETY: the section is open.
    unsafe { ops::each::<EXIT>(call) };
    super::with_guard(|guard| guard.store(0, Relaxed));
}

#[cold]
fn on_signal_stack() -> bool {
    // SAFETY: plain data.
    let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: asks only.
    unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) };
    stack.ss_flags & libc::SS_ONSTACK != 0
}

/// The error number as the program left it: a function may begin between a system call and the look at its error.
struct Errno(*mut libc::c_int, libc::c_int);

impl Errno {
    fn keep() -> Errno {
        // SAFETY: has no precondition.
        let word = unsafe { libc::__errno_location() };
        // SAFETY: the calling thread's own word.
        Errno(word, unsafe { *word })
    }
}

impl Drop for Errno {
    fn drop(&mut self) {
        // SAFETY: as above; this is the same thread.
        unsafe { *self.0 = self.1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::{Unheard, with_guard};

    /// A handler of samples runs on a stack that may lie above a trampoline which it has interrupted: what it calls must not
    /// take the guard for one that was left.
    #[test]
    fn a_handler_above_a_trampoline_is_not_heard() {
        const LOWEST: usize = 8;
        let call = FunctionCall { frame: 0, id: 0, depth: NO_DEPTH };
        let guard = || with_guard(|guard| guard.load(Relaxed));
        with_guard(|guard| guard.store(LOWEST, Relaxed));
        let unheard = Unheard::new();
        let within = guard();
        run::<false>(&call);
        assert!(within > &raw const call as usize && guard() == within);
        drop(unheard);
        assert_eq!(guard(), LOWEST);
        // Without, it does: as after a `longjmp`.
        run::<false>(&call);
        assert_eq!(guard(), 0);
        // Where none was interrupted, what a handler calls is heard.
        let unheard = Unheard::new();
        run::<false>(&call);
        assert_eq!(guard(), 0);
        drop(unheard);
        assert_eq!(guard(), 0);
    }
}
