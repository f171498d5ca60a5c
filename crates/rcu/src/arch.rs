//! What depends on the processor: one increment, and where a thread keeps its words.
//!
//! Two things here decide whether a read section costs one nanosecond or four.
//!
//! * **The increment** is one instruction with a memory destination and the simplest
//!   addressing mode, `inc qword ptr [reg]`. It must be one instruction because a signal
//!   handler may enter a section of the same thread between a load and a store and would
//!   lose its count; one instruction cannot be interrupted half way. It need not be atomic
//!   towards other threads: a slot has one writer. (`[reg + index * 8]` costs three times as
//!   much where the processor forwards stores by address register; so callers compute the
//!   address first.)
//! * **The thread's words** are one initial-exec thread-local block, found with one load from
//!   the GOT (which the linker turns into a constant in executables) and one `fs:` access.
//!   It neither allocates nor runs code on first touch, in signal handlers too.
//!
//! Elsewhere both have portable forms: a relaxed `fetch_add`, which is atomic to everybody, and
//! a `const` thread-local without destructor.

use crate::blocks::Shelf;
use crate::sync::{AtomicUsize, Ordering};

#[cfg(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64", not(miri)))]
#[path = "arch/x86_64_linux.rs"]
mod imp;

#[cfg(any(
    not(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64")),
    miri
))]
#[path = "arch/portable.rs"]
mod imp;

pub(crate) use imp::{increment, increment_release, prefetch, slot_word, with_thread};

/// Where [`ThreadWords::slot`] is.
pub(crate) const SLOT_WORD: usize = 32;

/// What a thread knows about itself. All zero until its first read section.
///
/// Only the thread itself (and its signal handlers, hence atomics) touches these.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct ThreadWords {
    /// Keeps `slot` out of the half of a line in which slots have counters; see `ActiveRank`.
    pub(crate) beside_counters: [u8; SLOT_WORD],
    /// See `threads::Word`: where in a region this thread's slot is; 0 while it has none.
    pub(crate) slot: AtomicUsize,
    /// 1 once the thread has given its index back and must not take another.
    pub(crate) gone: AtomicUsize,
    /// Read sections of any domain that this thread has open on shared slots.
    pub(crate) shared: AtomicUsize,
    /// Where small callbacks of this thread are placed; see `blocks`.
    pub(crate) shelf: Shelf,
}

impl ThreadWords {
    /// A number that no other living thread has, never 0 and a multiple of 64. It stays
    /// the same for the thread that calls `fork`.
    pub(crate) fn token(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// The calling thread's [`ThreadWords::token`].
pub(crate) fn thread_token() -> usize {
    with_thread(ThreadWords::token)
}

/// Runs `f` on the calling thread's shelf; `None` if it has no index, so that nobody would clear it at the thread's end.
pub(crate) fn with_shelf<R>(f: impl FnOnce(&Shelf) -> R) -> Option<R> {
    with_thread(|thread| (thread.slot.load(Ordering::Relaxed) != 0).then(|| f(&thread.shelf)))
}

/// How many sections the calling thread has open on shared slots, in any domain.
pub(crate) fn shared_sections() -> usize {
    with_thread(|thread| thread.shared.load(Ordering::Relaxed))
}
