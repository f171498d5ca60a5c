//! The same operations by ordinary atomics: dearer, but right on every architecture.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, compiler_fence};

/// Raises `word` by one.
#[inline(always)]
pub(crate) fn increment(word: &AtomicU32) {
    word.fetch_add(1, Relaxed);
    compiler_fence(Ordering::SeqCst);
}

/// Raises `word` by one.
#[inline(always)]
pub(crate) fn increment_short(word: &AtomicU16) {
    word.fetch_add(1, Relaxed);
}

/// Lowers `word` by one; what was written before is seen by whoever sees this.
#[inline(always)]
pub(crate) fn decrement(word: &AtomicU32) {
    word.fetch_sub(1, Release);
    compiler_fence(Ordering::SeqCst);
}

/// Replaces `old` in `word` by `new`; false if something else was there.
#[inline(always)]
pub(crate) fn replace(word: &AtomicU64, old: u64, new: u64) -> bool {
    word.compare_exchange(old, new, Relaxed, Relaxed).is_ok()
}

/// No counter that the kernel vouches for: callers use the monotonic clock.
#[inline(always)]
pub(crate) fn counter() -> u64 {
    0
}

/// Not known here: stacks are empty.
#[inline(always)]
pub(crate) fn frame_pointer() -> u64 {
    0
}

/// Can threads be told by [`thread_pointer`]?
pub(crate) const KNOWS_THREADS: bool = false;

/// Not known here.
pub(crate) fn thread_pointer() -> u64 {
    0
}

/// The word at an address.
///
/// # Safety
/// It is there, and on 8 bytes.
pub(crate) unsafe fn word(address: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::with_exposed_provenance::<u64>(address as usize).read_volatile() }
}

/// Copies so many bytes from an address.
///
/// # Safety
/// They are there, and `to` is the caller's, with room for them.
pub(crate) unsafe fn copy(from: u64, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        std::ptr::with_exposed_provenance::<u8>(from as usize).copy_to_nonoverlapping(to, bytes);
    }
}
