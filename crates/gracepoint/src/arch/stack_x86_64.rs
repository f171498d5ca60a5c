//! A call on another stack.

use core::arch::asm;

/// Is the stack another one?
pub(crate) const SWITCHES: bool = true;

/// Calls `body` with the stack pointer at `top`, and comes back. On the stack that it was called on that takes
/// nothing but its own frame. A panic in `body` ends the process.
///
/// # Safety
/// `top` is a multiple of 16 and the end of memory that nobody else uses meanwhile, as much as `body` and what it calls
/// take.
#[inline(always)]
pub(crate) unsafe fn call_on<F: FnOnce()>(top: *mut u8, body: F) {
    unsafe extern "C" fn enter<F: FnOnce()>(body: *mut Option<F>) {
        // SAFETY: the option below, which lives on the other stack and is nobody else's.
        if let Some(body) = unsafe { &mut *body }.take() {
            body();
        }
    }
    let enter: unsafe extern "C" fn(*mut Option<F>) = enter::<F>;
    let mut body = Some(body);
    // SAFETY: `r12` is a register that `enter` keeps, so the stack pointer is what it was in the end; the rest of what a C
    // function may change is named. The stack is the caller's promise; a call there begins as the C calling convention
    // wants it, with the return address below a multiple of 16. The default (no `nomem`) lets `enter` see `body`.
    unsafe {
        asm!(
            "mov r12, rsp",
            "mov rsp, {top}",
            "call {enter}",
            "mov rsp, r12",
            top = in(reg) top,
            enter = in(reg) enter,
            in("rdi") &raw mut body,
            out("r12") _,
            clobber_abi("C"),
        );
    }
}
