//! Every other processor and system: a relaxed `fetch_add` and a `const` thread-local.

use super::{SLOT_WORD, ThreadWords};
use crate::blocks::Shelf;
use crate::sync::{AtomicU64, AtomicUsize, Ordering, compiler_fence};
use std::mem::MaybeUninit;

thread_local! {
    static WORDS: ThreadWords = const {
        ThreadWords {
            beside_counters: [0; SLOT_WORD],
            slot: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            shared: AtomicUsize::new(0),
            shelf: Shelf::new(std::ptr::null_mut()),
        }
    };
}

/// Adds one to a counter that only the calling thread and its signal handlers write.
///
/// The compiler moves no memory access across it; the processor may.
#[inline(always)]
pub(crate) fn increment(counter: &AtomicU64) {
    compiler_fence(Ordering::SeqCst);
    counter.fetch_add(1, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
}

/// The same, with release.
#[inline(always)]
pub(crate) fn increment_release(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Release);
}

/// A hint that nobody takes here.
#[inline(always)]
pub(crate) fn prefetch(_: MaybeUninit<*const u8>) {}

/// The calling thread's `ThreadWords::slot`.
#[inline(always)]
pub(crate) fn slot_word() -> usize {
    with_thread(|thread| thread.slot.load(Ordering::Relaxed))
}

/// Runs `f` on the calling thread's words. (The thread-local has no destructor, so this
/// works until the thread's very end.)
pub(crate) fn with_thread<R>(f: impl FnOnce(&ThreadWords) -> R) -> R {
    WORDS.with(f)
}
