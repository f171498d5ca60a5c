//! Where no way to another stack is written: the call is made on this one.

/// Is the stack another one?
pub(crate) const SWITCHES: bool = false;

/// Calls `body`.
///
/// # Safety
/// None that matters here; see `stack_x86_64.rs`.
#[inline(always)]
pub(crate) unsafe fn call_on<F: FnOnce()>(_: *mut u8, body: F) {
    body();
}
