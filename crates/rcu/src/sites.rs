//! Where and since when threads are in read sections: noted while a domain is told to.
//!
//! It costs the fast path nothing, because it is off it: while sections are to be noted, the domain's
//! `fast` word is null, and every section comes by `read_slow`, which knows its call site
//! (`#[track_caller]`) and writes it here. `cargo run --example pair` has the price.
//!
//! One [`Site`] per thread, written by it and its signal handlers alone, in memory that is mapped when noting is first
//! switched on. It holds what the *outermost* section of each rank was entered by: one that is entered while the rank
//! has none open. All of it is for reports; a handler in the middle of a note, or a reader that
//! sees half of one, makes a report less exact and nothing worse.

use crate::clock;
use crate::counters::{Pair, RANKS};
use crate::region;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::system;
use crate::threads::{self, MAX_THREADS};
use std::panic::Location;
use std::ptr;

/// Sections are noted because call sites are asked for.
pub(crate) const CALL_SITES: usize = 1;
/// Sections are noted because the domain is being proven.
pub(crate) const PROVING: usize = 2;

/// What is noted of one thread. All zero is nothing.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Site {
    location: [AtomicPtr<Location<'static>>; RANKS],
    /// When the outermost section was entered, by `clock::now`.
    entered: [AtomicU64; RANKS],
    /// The longest stay that has ended, in nanoseconds, and where it was entered.
    longest: AtomicU64,
    longest_at: AtomicPtr<Location<'static>>,
    /// The kernel's number for the thread whose stay it was.
    longest_by: AtomicU32,
}

/// A stay in read sections that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stay {
    pub(crate) length: u64,
    pub(crate) location: Option<&'static Location<'static>>,
    pub(crate) tid: u32,
}

/// The notes of a domain.
#[derive(Debug)]
pub(crate) struct Sites {
    /// [`CALL_SITES`] and [`PROVING`].
    wanted: AtomicUsize,
    /// `MAX_THREADS` of them once mapped, and null before.
    table: AtomicPtr<Site>,
    /// The latest section of a thread without an index.
    unregistered: AtomicPtr<Location<'static>>,
}

impl Sites {
    /// For `mirror`: where the table's address is; an entry's size; where its times are.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) const PLACES: [usize; 3] = [
        std::mem::offset_of!(Sites, table),
        size_of::<Site>(),
        std::mem::offset_of!(Site, entered),
    ];

    pub(crate) const fn new() -> Self {
        Self {
            wanted: AtomicUsize::new(0),
            table: AtomicPtr::new(ptr::null_mut()),
            unregistered: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Whether sections are to be noted.
    #[inline]
    pub(crate) fn is_noting(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn is_proving(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) & PROVING != 0
    }

    /// Switches noting on for this reason, or off. (Without memory for it, nothing is noted.)
    pub(crate) fn want(&self, reason: usize, on: bool) {
        if !on {
            self.wanted.fetch_and(!reason, Ordering::Relaxed);
            return;
        }
        let missing = self.table.load(Ordering::Acquire).is_null();
        let fresh = missing.then(|| system::map_zeroed(MAX_THREADS * size_of::<Site>())).flatten();
        if let Some(fresh) = fresh {
            // If another was first, this mapping stays unused: addresses and no memory.
            let _ = self.table.compare_exchange(
                ptr::null_mut(),
                fresh.as_ptr().cast(),
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        self.wanted.fetch_or(reason, Ordering::Relaxed);
    }

    /// Forgets everything, for the next domain of the region.
    pub(crate) fn clear(&self) {
        self.wanted.store(0, Ordering::Relaxed);
        self.unregistered.store(ptr::null_mut(), Ordering::Relaxed);
        for index in 0..threads::high_water() {
            let Some(site) = self.of(index) else { return };
            site.longest.store(0, Ordering::Relaxed);
            for rank in 0..RANKS {
                site.location[rank].store(ptr::null_mut(), Ordering::Relaxed);
                site.entered[rank].store(0, Ordering::Relaxed);
            }
        }
    }

    fn of(&self, index: u32) -> Option<&Site> {
        // Acquire: pairs with the exchange in `want`.
        let table = self.table.load(Ordering::Acquire);
        if table.is_null() || index as usize >= MAX_THREADS {
            return None;
        }
        // SAFETY: not null, so a mapping of MAX_THREADS zeroed sites, aligned to a page and never
        // unmapped; the index is below that; all-zero is a valid Site.
        Some(unsafe { &*table.add(index as usize) })
    }

    /// A section that the calling thread is about to enter on `pair`, of its own slot.
    pub(crate) fn enter(&self, index: u32, pair: &Pair, location: &'static Location<'static>) {
        let Some(site) = self.of(index) else { return };
        let lock = pair.lock.load(Ordering::Relaxed);
        if lock == pair.unlock.load(Ordering::Relaxed) {
            let rank = rank_of(pair);
            site.location[rank].store(address(location), Ordering::Relaxed);
            site.entered[rank].store(clock::now(), Ordering::Relaxed);
        }
    }

    /// A section of a thread without an index.
    pub(crate) fn note_unregistered(&self, location: &'static Location<'static>) {
        self.unregistered.store(address(location), Ordering::Relaxed);
    }

    /// Where the latest section of a thread without an index was entered.
    pub(crate) fn unregistered(&self) -> Option<&'static Location<'static>> {
        location(&self.unregistered)
    }

    /// Where and when a thread's outermost section of a rank was entered, if that was noted.
    pub(crate) fn entered(
        &self,
        index: u32,
        rank: usize,
    ) -> Option<(&'static Location<'static>, u64)> {
        let site = self.of(index)?;
        let entered = site.entered[rank].load(Ordering::Relaxed);
        if entered == 0 { None } else { Some((location(&site.location[rank])?, entered)) }
    }

    /// The longest stay of a thread that has ended since this was last asked.
    pub(crate) fn take_longest(&self, index: u32) -> Option<Stay> {
        let site = self.of(index)?;
        let length = site.longest.swap(0, Ordering::Relaxed);
        let tid = site.longest_by.load(Ordering::Relaxed);
        (length != 0).then(|| Stay { length, location: location(&site.longest_at), tid })
    }
}

/// The calling thread is about to leave a section that was noted, on its own slot.
pub(crate) fn leave(pair: &Pair) {
    let address = ptr::from_ref(pair).addr();
    let Some(region) = region::of_pair(address) else { return };
    let Some(index) = region.index_of_pair(address) else { return };
    let Some(site) = region.sites.of(index) else { return };
    let open = pair.lock.load(Ordering::Relaxed).wrapping_sub(pair.unlock.load(Ordering::Relaxed));
    if open != 1 {
        return;
    }
    let rank = rank_of(pair);
    let entered = site.entered[rank].swap(0, Ordering::Relaxed);
    let stay = clock::now().saturating_sub(entered);
    if entered != 0 && stay > site.longest.load(Ordering::Relaxed) {
        let location = site.location[rank].load(Ordering::Relaxed);
        site.longest_at.store(location, Ordering::Relaxed);
        let tid = threads::thread_info(index).map_or(0, |info| info.tid);
        site.longest_by.store(tid, Ordering::Relaxed);
        site.longest.store(stay, Ordering::Relaxed);
    }
}

/// Slots are aligned to their size, so the address says which of a slot's pairs it is.
fn rank_of(pair: &Pair) -> usize {
    (ptr::from_ref(pair).addr() / size_of::<Pair>())
        % (align_of::<crate::counters::Slot>() / size_of::<Pair>())
}

fn address(location: &'static Location<'static>) -> *mut Location<'static> {
    ptr::from_ref(location).cast_mut()
}

fn location(from: &AtomicPtr<Location<'static>>) -> Option<&'static Location<'static>> {
    // SAFETY: null, or from `address`, which was given a `&'static`.
    unsafe { from.load(Ordering::Relaxed).as_ref() }
}
