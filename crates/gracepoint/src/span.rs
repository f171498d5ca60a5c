//! Spans: a begin and an end with one id, so that a tool can pair them.
//!
//! An id is the ring slot of the thread that began the span (16 bits) and a sequence number of that
//! slot (48 bits); it is never 0. Each slot remembers the spans that are open on it, of which the
//! innermost becomes the parent of the next. A span may end in any order and on any thread (held
//! across `.await`, say): it takes itself off the slot where it began. The first [`DEPTH`] levels are
//! remembered; a span further in has the last of these as its parent.

use crate::event::Event;
use crate::key::{Key, SpanPoint, fire};
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

const SEQUENCE_BITS: u32 = 48;
/// Slot of threads without an index.
const NOBODY: usize = gracepoint_rcu::MAX_THREADS - 1;

/// Open spans that a slot remembers.
const DEPTH: usize = 15;

struct Slot {
    sequence: AtomicU64,
    /// Ids of open spans, outermost first; 0 where there is none (any more). Pushed by the slot's
    /// own thread and its signal handlers, which leave it as they found it; taken off by anybody.
    open: [AtomicU64; DEPTH],
}

impl Slot {
    #[expect(clippy::declare_interior_mutable_const, reason = "each use is a slot of its own")]
    const NEW: Slot =
        Slot { sequence: AtomicU64::new(0), open: [const { AtomicU64::new(0) }; DEPTH] };

    /// The innermost open span, and where the next one goes.
    fn innermost(&self) -> (u64, usize) {
        let open = self.open.iter().map(|id| id.load(Relaxed)).enumerate();
        open.filter(|(_, id)| *id != 0).last().map_or((0, 0), |(at, id)| (id, at + 1))
    }

    fn push(&self, at: usize, id: u64) {
        if let Some(place) = self.open.get(at) {
            place.store(id, Relaxed);
        }
    }

    fn remove(&self, id: u64) {
        for place in &self.open {
            let _ = place.compare_exchange(id, 0, Relaxed, Relaxed);
        }
    }
}

/// Zero pages of the program's image: a slot that no thread has used costs no memory.
static SLOTS: [Slot; gracepoint_rcu::MAX_THREADS] =
    [const { Slot::NEW }; gracepoint_rcu::MAX_THREADS];

/// This thread's slot, and an id that is new.
#[inline]
fn take_id() -> (usize, u64) {
    let slot = gracepoint_rcu::thread_index().map_or(NOBODY, |index| index as usize);
    let sequence = SLOTS[slot].sequence.fetch_add(1, Relaxed) + 1;
    (slot, (slot as u64) << SEQUENCE_BITS | sequence & ((1 << SEQUENCE_BITS) - 1))
}

/// An id for a span that is somebody else's.
#[inline]
pub(crate) fn next_id() -> u64 {
    take_id().1
}

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
        let (slot, id) = take_id();
        let state = &SLOTS[slot];
        let (parent, next) = if slot == NOBODY { (0, DEPTH) } else { state.innermost() };
        let point = SpanPoint { id, parent };
        // SAFETY: `E::KEY` is the key of `E`.
        if !unsafe { fire(E::KEY, (&raw const *event).cast(), &raw const point) } {
            return Span::off();
        }
        state.push(next, id);
        Span { key: Some(E::KEY), id, parent }
    }

    #[cold]
    #[inline(never)]
    fn end(&self, key: &'static Key) {
        let point = SpanPoint { id: self.id, parent: self.parent };
        // SAFETY: a null event is the end of a span, of whatever type.
        unsafe { fire(key, ptr::null(), &raw const point) };
        SLOTS[(self.id >> SEQUENCE_BITS) as usize].remove(self.id);
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
        for id in &slot.open {
            id.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_end_out_of_order_are_nobodys_parents() {
        let slot = Slot::NEW;
        for id in [1, 2, 3] {
            slot.push(slot.innermost().1, id);
        }
        slot.remove(1);
        assert_eq!(slot.innermost(), (3, 3));
        slot.remove(3);
        assert_eq!(slot.innermost(), (2, 2));
        slot.remove(2);
        assert_eq!(slot.innermost(), (0, 0));
        for id in 1..=20 {
            slot.push(slot.innermost().1, id);
        }
        assert_eq!(slot.innermost(), (DEPTH as u64, DEPTH), "deeper ones are not remembered");
    }

    #[test]
    fn the_next_thread_on_a_slot_is_inside_no_span() {
        let last = NOBODY - 1; // a slot that no thread of this test has
        SLOTS[last].push(0, 77);
        leave(last as u32);
        assert_eq!(SLOTS[last].innermost(), (0, 0));
    }
}
