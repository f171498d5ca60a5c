//! For tests: the trap flag of x86-64. While it is set, each instruction of the thread ends in SIGTRAP.

use std::arch::asm;

/// # Safety
/// SIGTRAP has a handler that returns.
#[inline(always)]
pub(crate) unsafe fn trap_each_instruction() {
    // SAFETY: changes nothing but the flag, on the stack as the instructions before and after it; what comes of it
    // is the caller's promise.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
}

/// No more.
#[inline(always)]
pub(crate) fn trap_no_more() {
    // SAFETY: as above, and the flag is cleared.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
}
