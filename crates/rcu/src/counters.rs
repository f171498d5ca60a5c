//! A thread's counters in one domain, and the two halves of a read section.
//!
//! Per *rank* (0 or 1) a slot counts sections entered (`lock`) and left (`unlock`). Both only
//! grow; a section is open exactly while the sums differ. Two counters instead of one that
//! goes up and down, because then a scan that reads all `unlock`s *before* all `lock`s errs
//! on the safe side only: it may miss that a section ended, never that one is open.
//!
//! Two ranks, because new sections must not keep a grace period waiting for ever: it sends
//! them to one rank while it waits for the other to drain. A guard remembers its own rank, so
//! guards may nest, overlap and end in any order.
//!
//! Orderings: `enter` is increment, light barrier, which pairs with the heavy one of a grace period; `leave` is
//! an increment with release, which pairs with the acquire of a scan; `grace` has the
//! argument. Without the barrier in `enter`, the section's loads may be done before the
//! processor makes the increment visible: the scan sees nobody and frees what is being read
//! (the store-buffering litmus test). Without the release in `leave`, a load of the section may be
//! done after the section was seen to end.

use crate::arch;
use crate::barrier;
use crate::sync::{AtomicU64, AtomicUsize, Ordering, constant, unexplored};

/// How many ranks there are.
pub(crate) const RANKS: usize = 2;

/// Sections entered and left, of one thread in one rank.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Pair {
    pub(crate) lock: AtomicU64,
    pub(crate) unlock: AtomicU64,
}

impl Pair {
    constant! {
        pub(crate) fn new() -> Self {
            Self { lock: AtomicU64::new(0), unlock: AtomicU64::new(0) }
        }
    }

    /// Ends so many open sections that nobody will leave. Release, as in `leave_among_many`.
    pub(crate) fn forget(&self, sections: u64) {
        self.unlock.fetch_add(sections, Ordering::Release);
    }

    /// Forgets open sections. Only for those that nobody can ever leave: of threads that
    /// a forked child does not have, or of a domain that is being dropped.
    pub(crate) fn balance(&self) {
        let lock = self.lock.load(Ordering::Relaxed);
        if self.unlock.load(Ordering::Relaxed) != lock {
            self.unlock.store(lock, Ordering::Relaxed);
        }
    }
}

/// One thread's counters in one domain: a cache line that only this thread writes.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    pub(crate) pairs: [Pair; RANKS],
    /// Callbacks queued, ever. Here because an addition to a word of one's own is a tenth of an
    /// atomic one.
    pub(crate) called: unexplored::AtomicU64,
}

impl Slot {
    constant! {
        pub(crate) fn new() -> Self {
            Self { pairs: [Pair::new(), Pair::new()], called: unexplored::AtomicU64::new(0) }
        }
    }

    /// Whether a section is open. Exact for the slot's own thread.
    pub(crate) fn is_open(&self) -> bool {
        self.pairs
            .iter()
            .any(|pair| pair.lock.load(Ordering::Relaxed) != pair.unlock.load(Ordering::Relaxed))
    }

    /// [`Pair::balance`] on both ranks.
    pub(crate) fn balance(&self) {
        self.pairs.iter().for_each(Pair::balance);
    }
}

/// Sections of a rank that are certainly open on any of these slots: entered before this call began
/// and not left when it ended.
///
/// `lock`s are read first. So if the `unlock`s, read later, are fewer, some section that was counted
/// is still open. (A scan that must not miss one reads the other way round.)
pub(crate) fn certainly_open(slots: &[Slot], rank: usize) -> u64 {
    // (The acquire in `entered` keeps them in this order.)
    let entered = entered(slots, rank);
    // Later sections may have ended in between, and then these are more.
    let open = entered.wrapping_sub(left(slots, rank));
    if open.cast_signed() > 0 { open } else { 0 }
}

/// Sections of a rank entered on any of these slots, ever.
pub(crate) fn entered(slots: &[Slot], rank: usize) -> u64 {
    let counts = slots.iter().map(|slot| slot.pairs[rank].lock.load(Ordering::Acquire));
    counts.fold(0, u64::wrapping_add)
}

/// Sections of a rank left on any of these slots, ever.
pub(crate) fn left(slots: &[Slot], rank: usize) -> u64 {
    let counts = slots.iter().map(|slot| slot.pairs[rank].unlock.load(Ordering::Relaxed));
    counts.fold(0, u64::wrapping_add)
}

/// Bytes before the word of [`ActiveRank`].
const BESIDE: usize = 64 - size_of::<AtomicUsize>();

/// The rank that new sections take, kept as the byte offset of its pair in a slot so
/// that a reader adds it and does not multiply. Alone in its cache lines: every reader
/// reads it, and only a grace period that had to wait writes it.
///
/// A load whose address ends in the same 12 bits as that of a store under way is held up by it. So it is in
/// the half of its line in which slots have no counters, for the sake of every 64th thread; and in the last
/// word of that, for the sake of whoever writes into the first words of pages inside of sections (a ring
/// buffer's commit word at 32 made a pair of a read section 2 ns slower, on Xeons of 2023).
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct ActiveRank {
    beside_counters: [u8; BESIDE],
    offset: AtomicUsize,
}

impl ActiveRank {
    /// Where the word is, for `mirror` and for those who enter in assembly.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) const PLACE: usize = std::mem::offset_of!(ActiveRank, offset);

    constant! {
        pub(crate) fn new() -> Self {
            Self {
                beside_counters: [0; BESIDE],
                offset: AtomicUsize::new(0),
            }
        }
    }

    /// The rank, 0 or 1.
    pub(crate) fn get(&self) -> usize {
        self.offset.load(Ordering::Relaxed) / size_of::<Pair>()
    }

    /// Sends new sections to `rank`. Relaxed: which rank a section takes matters for how
    /// long a grace period waits, never for whether it is right.
    pub(crate) fn set(&self, rank: usize) {
        debug_assert!(rank < RANKS);
        self.offset.store(rank * size_of::<Pair>(), Ordering::Relaxed);
    }

    /// This rank's pair in `slot`.
    #[inline(always)]
    pub(crate) fn pair<'s>(&self, slot: &'s Slot) -> &'s Pair {
        let offset = self.offset.load(Ordering::Relaxed);
        // SAFETY: the word is 0 or size_of::<Pair>(), which `new` and `set` alone write, so
        // the result is pairs[0] or pairs[1] of the borrowed slot.
        unsafe { &*slot.pairs.as_ptr().byte_add(offset) }
    }
}

/// Enters a section on the calling thread's own slot.
#[inline(always)]
pub(crate) fn enter<'s>(rank: &ActiveRank, slot: &'s Slot) -> &'s Pair {
    let pair = rank.pair(slot);
    arch::increment(&pair.lock);
    // Pairs with the heavy barrier of a scan (see `grace`): see the module's text.
    barrier::light();
    pair
}

/// Leaves the section that `enter` returned `pair` for. Same thread.
#[inline(always)]
pub(crate) fn leave(pair: &Pair) {
    // Release: a section whose end is counted has done all its accesses. Pairs with the acquire of
    // `unlock`s in a scan.
    arch::increment_release(&pair.unlock);
}

/// Enters a section on counters that several threads write; it may be left on another thread.
///
/// The addition is atomic, because a lost one would make the section of one thread end with that of
/// another.
#[inline(always)]
pub(crate) fn enter_among_many<'s>(rank: &ActiveRank, slot: &'s Slot) -> &'s Pair {
    let pair = rank.pair(slot);
    pair.lock.fetch_add(1, Ordering::Relaxed);
    // Pairs with the heavy barrier of a scan, in whichever form.
    barrier::either();
    pair
}

/// Leaves the section that `enter_among_many` returned `pair` for, on any thread.
#[inline(always)]
pub(crate) fn leave_among_many(pair: &Pair) {
    // Release: a section whose end is counted has done its accesses, on all threads that it was on,
    // and its `lock` is seen by whoever has seen its `unlock`. Pairs with the acquire of `unlock`s in a scan.
    pair.unlock.fetch_add(1, Ordering::Release);
}
