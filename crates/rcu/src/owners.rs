//! Counters of owned sections, by the name of their owner.
//!
//! An owned section ([`OwnedGuard`](crate::OwnedGuard)) belongs to no thread: it may be entered on one and
//! left on another, and many may be entered at once. So it is counted apart from the threads' slots, by
//! atomic additions (`counters::{enter_among_many, leave_among_many}`), in the entry of its owner's name: the
//! counters that a grace period adds up are also what says who holds it up, and no list of guards is
//! kept. An entry has several slots, so that threads that use the same name do not meet on one cache line.
//!
//! # Names
//!
//! An entry belongs to the first name that takes it (by compare-exchange: a first section may be in a
//! signal handler) for as long as the region has its domain. Names are compared by address, so
//! a name that is written in two places may have two entries; reports add them up. When no entry is
//! left for a name, its sections count on the region's `nameless` slot, and are right.
//!
//! Orderings. A scan looks at the entries whose bit in `used` is set. The bit is set *before* the name is
//! published (release in `publish`, acquire in `find`), hence before any increment of whoever finds the
//! name: the heavy barrier of a scan that follows an increment makes the bit visible with it. If the
//! name were published first, a second thread could count on an entry that no scan looks at, and what it
//! reads would be freed (a twin in `tests/loom.rs`).

use crate::counters::{RANKS, Slot, certainly_open};
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::panic::Location;
use std::ptr;

/// One owner: its name, and its sections.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Owner<const SHARDS: usize> {
    /// The address of the name; null while the entry is nobody's.
    name: AtomicPtr<u8>,
    /// The name's length plus one; 0 while it is not published.
    length: AtomicUsize,
    /// Where its latest section was entered, if that is noted.
    site: AtomicPtr<Location<'static>>,
    /// Sections that a forked child has from its parent, per rank.
    inherited: [AtomicU64; RANKS],
    pub(crate) slots: [Slot; SHARDS],
}

/// All owners of a region. All zero is the empty table.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Owners<const NAMES: usize, const SHARDS: usize> {
    /// A bit for each entry that a scan must look at.
    used: AtomicU64,
    entries: [Owner<SHARDS>; NAMES],
}

impl<const NAMES: usize, const SHARDS: usize> Owners<NAMES, SHARDS> {
    /// For `mirror`: where the bits and the entries are; an entry's size and how many there are; where its
    /// name, its length and its slots are, and how many slots.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) const PLACES: [usize; 8] = [
        std::mem::offset_of!(Self, used),
        std::mem::offset_of!(Self, entries),
        size_of::<Owner<SHARDS>>(),
        NAMES,
        std::mem::offset_of!(Owner<SHARDS>, name),
        std::mem::offset_of!(Owner<SHARDS>, length),
        std::mem::offset_of!(Owner<SHARDS>, slots),
        SHARDS,
    ];

    /// The entry of this name, which is taken for it if it has none. `None` if there is no room, or
    /// if just now another takes the entry for it.
    #[inline]
    pub(crate) fn find(&self, name: &'static str) -> Option<&Owner<SHARDS>> {
        const { assert!(NAMES <= 64 && NAMES.is_power_of_two()) };
        let address = name.as_ptr();
        let first = (address.addr() >> 4) ^ (address.addr() >> 10);
        for position in 0..NAMES {
            let number = first.wrapping_add(position) % NAMES;
            let entry = &self.entries[number];
            let known = entry.name.load(Ordering::Relaxed);
            if known.is_null() && self.take(number, name) {
                return Some(entry);
            }
            if entry.name.load(Ordering::Relaxed).cast_const() != address {
                continue;
            }
            // Acquire: pairs with the release in `publish`; see the module's text. (For scans, the barrier of
            // the section that is entered after this would do.)
            match entry.length.load(Ordering::Acquire) {
                0 => return None,
                length if length == name.len() + 1 => return Some(entry),
                // Another name that begins at the same address.
                _ => {}
            }
        }
        None
    }

    /// Makes an entry a name's. False if somebody else was first.
    #[cold]
    fn take(&self, number: usize, name: &'static str) -> bool {
        if !self.claim(number, name) {
            return false;
        }
        self.show(number);
        self.publish(number, name);
        true
    }

    /// The first of three steps: the entry is this name's, and nobody else finds it yet.
    pub(crate) fn claim(&self, number: usize, name: &'static str) -> bool {
        let address = name.as_ptr().cast_mut();
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        self.entries[number]
            .name
            .compare_exchange(ptr::null_mut(), address, order.0, order.1)
            .is_ok()
    }

    /// The second: scans look at it.
    pub(crate) fn show(&self, number: usize) {
        self.used.fetch_or(1 << number, Ordering::Relaxed);
    }

    /// The third: others find it.
    pub(crate) fn publish(&self, number: usize, name: &'static str) {
        // Release: pairs with the acquire in `find`; the entry is shown to scans by then.
        self.entries[number].length.store(name.len() + 1, Ordering::Release);
    }

    /// The entries that have ever had a section.
    pub(crate) fn used(&self) -> impl Iterator<Item = &Owner<SHARDS>> {
        // Relaxed: what orders it is the heavy barrier of the scan, as for the counters.
        let mut left = self.used.load(Ordering::Relaxed);
        std::iter::from_fn(move || {
            let number = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            self.entries.get(number)
        })
    }

    /// In a forked child: remembers which sections came from the parent.
    pub(crate) fn note_fork(&self) {
        self.used().for_each(Owner::note_fork);
    }

    /// Ends the sections that came from the parent; how many.
    pub(crate) fn forget_inherited(&self) -> u64 {
        self.used().map(Owner::forget_inherited).sum()
    }

    /// Forgets names and sections. Only when nobody can reach them any more.
    pub(crate) fn clear(&self) {
        for entry in self.used() {
            entry.slots.iter().for_each(Slot::balance);
            entry.inherited.iter().for_each(|count| count.store(0, Ordering::Relaxed));
            entry.site.store(ptr::null_mut(), Ordering::Relaxed);
            entry.length.store(0, Ordering::Relaxed);
            entry.name.store(ptr::null_mut(), Ordering::Relaxed);
        }
        self.used.store(0, Ordering::Relaxed);
    }

    /// An empty table, where memory does not come zeroed.
    #[cfg(test)]
    #[allow(dead_code, reason = "for tests/loom.rs")]
    pub(crate) fn new() -> Self {
        let entries = std::array::from_fn(|_| Owner {
            name: AtomicPtr::new(ptr::null_mut()),
            length: AtomicUsize::new(0),
            site: AtomicPtr::new(ptr::null_mut()),
            inherited: [AtomicU64::new(0), AtomicU64::new(0)],
            slots: std::array::from_fn(|_| Slot::new()),
        });
        Self { used: AtomicU64::new(0), entries }
    }
}

impl<const SHARDS: usize> Owner<SHARDS> {
    /// The name; `None` while it is not published.
    pub(crate) fn name(&self) -> Option<&'static str> {
        let length = self.length.load(Ordering::Acquire).checked_sub(1)?;
        let address = self.name.load(Ordering::Relaxed);
        // SAFETY: `length` is not 0, so `publish` stored it, after `claim` had stored the address of
        // the same `&'static str`; the pair does not change while the region has its domain.
        let bytes = unsafe { std::slice::from_raw_parts(address.cast_const(), length) };
        // SAFETY: these are all the bytes of a `str`.
        Some(unsafe { std::str::from_utf8_unchecked(bytes) })
    }

    /// Sections of this rank that a forked child had from its parent.
    pub(crate) fn inherited(&self, rank: usize) -> u64 {
        self.inherited[rank].load(Ordering::Relaxed)
    }

    /// Notes where a section is entered.
    pub(crate) fn note(&self, site: &'static Location<'static>) {
        // Relaxed: a `Location` is in the program's constants, whoever reads its address.
        self.site.store(ptr::from_ref(site).cast_mut(), Ordering::Relaxed);
    }

    /// Where the latest noted section was entered.
    pub(crate) fn site(&self) -> Option<&'static Location<'static>> {
        // SAFETY: null, or from the `&'static` that `note` was given.
        unsafe { self.site.load(Ordering::Relaxed).as_ref() }
    }

    fn note_fork(&self) {
        for (rank, count) in self.inherited.iter().enumerate() {
            count.store(certainly_open(&self.slots, rank), Ordering::Relaxed);
        }
    }

    fn forget_inherited(&self) -> u64 {
        let mut total = 0;
        for (rank, count) in self.inherited.iter().enumerate() {
            let count = count.swap(0, Ordering::Relaxed);
            // Any slot will do: a scan adds them all up.
            self.slots[0].pairs[rank].forget(count);
            total += count;
        }
        total
    }
}
