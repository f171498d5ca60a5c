//! Spans: a begin and an end with one id, so that a tool can pair them.
//!
//! An id is the ring slot of the thread that began the span (16 bits) and a sequence number of that
//! slot (48 bits); it is never 0. Each slot remembers its innermost open span, which becomes the
//! parent of the next. A span that ends on another thread (held across `.await`) takes itself off
//! the slot where it began, if it is still the innermost there.

use crate::event::Event;
use crate::key::{Key, SpanPoint, fire};
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

const SEQUENCE_BITS: u32 = 48;
/// Slot of threads without an index.
const NOBODY: usize = gracepoint_rcu::MAX_THREADS - 1;

struct Slot {
    sequence: AtomicU64,
    current: AtomicU64,
}

/// Zero pages of the program's image: a slot that no thread has used costs no memory.
static SLOTS: [Slot; gracepoint_rcu::MAX_THREADS] =
    [const { Slot { sequence: AtomicU64::new(0), current: AtomicU64::new(0) } };
        gracepoint_rcu::MAX_THREADS];

/// An open span; it ends when the value is dropped, on any thread.
///
/// Made by [`span!`](crate::span!). If the event was off when the span began, or its record was
/// lost, the end is not recorded either.
#[derive(Debug)]
#[must_use = "the span ends when this is dropped"]
pub struct Span {
    key: Option<&'static Key>,
    id: u64,
    parent: u64,
}

impl Span {
    /// A span that records nothing.
    #[inline(always)]
    pub const fn off() -> Span {
        Span { key: None, id: 0, parent: 0 }
    }

    /// The span's id in traces; `None` if its begin was not recorded.
    pub fn id(&self) -> Option<u64> {
        (self.id != 0).then_some(self.id)
    }

    /// The cold path of `span!`.
    #[doc(hidden)]
    #[cold]
    #[inline(never)]
    pub fn begin<E: Event>(event: &E) -> Span {
        let slot = gracepoint_rcu::thread_index().map_or(NOBODY, |index| index as usize);
        let state = &SLOTS[slot];
        let sequence = state.sequence.fetch_add(1, Relaxed) + 1;
        let id = (slot as u64) << SEQUENCE_BITS | sequence & ((1 << SEQUENCE_BITS) - 1);
        let parent = if slot == NOBODY { 0 } else { state.current.load(Relaxed) };
        let point = SpanPoint { id, parent };
        // SAFETY: `E::KEY` is the key of `E`.
        if !unsafe { fire(E::KEY, (&raw const *event).cast(), &raw const point) } {
            return Span::off();
        }
        state.current.store(id, Relaxed);
        Span { key: Some(E::KEY), id, parent }
    }

    #[cold]
    #[inline(never)]
    fn end(&self, key: &'static Key) {
        let point = SpanPoint { id: self.id, parent: self.parent };
        // SAFETY: a null event is the end of a span, of whatever type.
        unsafe { fire(key, ptr::null(), &raw const point) };
        let state = &SLOTS[(self.id >> SEQUENCE_BITS) as usize];
        let _ = state.current.compare_exchange(self.id, self.parent, Relaxed, Relaxed);
    }
}

impl Drop for Span {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.end(key);
        }
    }
}

/// At a thread's end: the next thread on this slot is inside no span.
pub(crate) fn leave(index: u32) {
    if let Some(slot) = SLOTS.get(index as usize) {
        slot.current.store(0, Relaxed);
    }
}
