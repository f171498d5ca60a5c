//! Which user probes each thread is running: the depth guard, and the words of a stall report.
//!
//! A probe that hits a tracepoint may run probes again, its own too. At most [`DEPTH`] user probes are
//! nested on a thread; a hit further in calls no user probe and is counted. The session writer never
//! comes here: it calls no code of the program while it writes, and what a signal handler records is
//! not lost because of what the handler interrupted.
//!
//! A slot belongs to the thread that has its index (the ring's and the read sections' own number). Only
//! that thread and its signal handlers write to it, and a handler leaves it as it found it, so plain
//! loads and stores do. `depth` is raised before the id is written: a handler in between takes the next
//! place. Others read a slot at any time, for reports; they see ids, never pointers, and an id that is
//! out of date names no probe (ids are never used again) or one that has just returned.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// User probes nested on one thread at most.
pub(crate) const DEPTH: usize = 4;

#[repr(C, align(64))]
struct Slot {
    depth: AtomicU32,
    ids: [AtomicU64; DEPTH],
}

/// Zero pages of the program's image: a slot that no thread has used costs no memory.
static SLOTS: [Slot; gracepoint_rcu::MAX_THREADS] =
    [const { Slot { depth: AtomicU32::new(0), ids: [const { AtomicU64::new(0) }; DEPTH] } };
        gracepoint_rcu::MAX_THREADS];

thread_local! {
    /// The depth of a thread that has no index (any more). It has no destructor, so it is there to the
    /// thread's very end.
    static UNNAMED: Cell<u32> = const { Cell::new(0) };
}

/// A user probe that this thread is running: where its slot begins, plus how many it runs in; or [`UNNAMED_SLOT`].
///
/// One word, which comes in a register. And `leave` loads no depth: it would wait for the store that `enter`
/// has made, and the next `enter` for that.
pub(crate) struct Running(NonNull<Slot>);

/// In place of the slot of a thread without an index: no slot's address plus a depth.
const UNNAMED_SLOT: NonNull<Slot> = NonNull::without_provenance(NonZeroUsize::MAX);
/// What is added to a slot's address is in these bits.
const WITHIN: usize = align_of::<Slot>() - 1;
const _: () = assert!(DEPTH < WITHIN && size_of::<Slot>() == 64);

/// Begins to run a probe. `None` where [`DEPTH`] are running already.
#[inline(always)]
pub(crate) fn enter(id: u64) -> Option<Running> {
    let Some(index) = gracepoint_rcu::thread_index() else { return enter_unnamed() };
    // An index is less than `MAX_THREADS`; the remainder costs an `and` and no branch.
    let slot = &SLOTS[index as usize % gracepoint_rcu::MAX_THREADS];
    if slot.depth.load(Relaxed) != 0 {
        return enter_nested(slot, id);
    }
    slot.depth.store(1, Relaxed);
    slot.ids[0].store(id, Relaxed);
    Some(Running(NonNull::from(slot)))
}

#[cold]
#[inline(never)]
fn enter_nested(slot: &'static Slot, id: u64) -> Option<Running> {
    let depth = slot.depth.load(Relaxed);
    let place = slot.ids.get(depth as usize)?;
    slot.depth.store(depth + 1, Relaxed);
    place.store(id, Relaxed);
    Some(Running(NonNull::from(slot).map_addr(|address| address | depth as usize)))
}

#[cold]
#[inline(never)]
fn enter_unnamed() -> Option<Running> {
    UNNAMED
        .try_with(|depth| {
            let free = (depth.get() as usize) < DEPTH;
            free.then(|| depth.set(depth.get() + 1))
        })
        .ok()
        .flatten()
        .map(|()| Running(UNNAMED_SLOT))
}

impl Running {
    /// The probe has returned.
    #[inline(always)]
    pub(crate) fn leave(self) {
        if self.0.addr().get() & WITHIN != 0 {
            return self.leave_otherwise();
        }
        // SAFETY: without anything added it is the address of one of SLOTS.
        let slot = unsafe { self.0.as_ref() };
        slot.ids[0].store(0, Relaxed);
        slot.depth.store(0, Relaxed);
    }

    /// Of a nested probe, or of a thread without an index.
    #[cold]
    #[inline(never)]
    fn leave_otherwise(self) {
        if self.0 == UNNAMED_SLOT {
            let _ = UNNAMED.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
            return;
        }
        let depth = self.0.addr().get() & WITHIN;
        // SAFETY: without what was added it is the address of one of SLOTS.
        let slot = unsafe { self.0.byte_sub(depth).as_ref() };
        if let Some(place) = slot.ids.get(depth) {
            place.store(0, Relaxed);
        }
        slot.depth.store(depth as u32, Relaxed);
    }
}

/// Ids of the user probes that the thread with this index is running, innermost first.
pub(crate) fn ids(index: u32) -> impl Iterator<Item = u64> {
    let slot = SLOTS.get(index as usize);
    slot.into_iter()
        .flat_map(|slot| slot.ids.iter().rev())
        .map(|id| id.load(Relaxed))
        .filter(|&id| id != 0)
}

/// For who looks from outside: where the slots are, their size, where the ids of one are and how many.
#[cfg_attr(not(gp_supported), allow(dead_code, reason = "nobody looks there"))]
pub(crate) fn places() -> (usize, usize, usize, usize) {
    let slots = std::ptr::from_ref(&SLOTS).addr();
    (slots, size_of::<Slot>(), std::mem::offset_of!(Slot, ids), DEPTH)
}

/// In a forked child: the parent's other threads are not there, and their indices are free.
pub(crate) fn child_after_fork() {
    let mine = gracepoint_rcu::thread_index();
    for (index, slot) in (0..gracepoint_rcu::high_water()).zip(&SLOTS) {
        if Some(index) != mine && slot.depth.load(Relaxed) != 0 {
            slot.depth.store(0, Relaxed);
            slot.ids.iter().for_each(|id| id.store(0, Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_is_refused_until_one_has_returned() {
        let mut running: Vec<Running> =
            (1..=4).map(|id| enter(id).expect("a free place")).collect();
        assert!(enter(5).is_none());
        let index = gracepoint_rcu::thread_index().expect("a thread of a test has an index");
        assert_eq!(ids(index).collect::<Vec<_>>(), [4, 3, 2, 1]);
        running.pop().expect("four").leave();
        enter(6).expect("a free place").leave();
        for one in running.into_iter().rev() {
            one.leave();
        }
        assert_eq!(ids(index).count(), 0);
    }

    #[test]
    fn threads_without_an_index_count_too() {
        let running: Vec<Running> =
            (1..=4).map(|_| enter_unnamed().expect("a free place")).collect();
        assert!(enter_unnamed().is_none());
        running.into_iter().for_each(Running::leave);
        enter_unnamed().expect("a free place").leave();
    }
}
