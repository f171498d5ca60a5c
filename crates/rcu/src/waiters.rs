//! Which threads wait for which grace period.
//!
//! A thread that has to wait says so in an entry that goes with its index, before it first pauses:
//! four stores, by the thread alone. Who looks (a report) takes no lock and may see an entry
//! that is being changed: `region` is emptied first, written last, and checked after; and each of the words between
//! releases that it is empty. So who sees a word of another wait sees another region. (Each of the four pairs has its twins in
//! `tests/loom/orderings.rs`. Two waits for the same region may be mixed up all the same, in a line of a report.)
//!
//! Waiting nests: a thread in `barrier` runs callbacks, and one of those may wait too. The inner wait
//! is shown while it lasts, and then the outer one again.

use crate::clock;
use crate::region::Region;
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, constant};
use crate::threads;
use std::ptr;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitKind {
    /// The end of a grace period: `synchronize` and its kin.
    GracePeriod,
    /// Callbacks, which wait for a grace period: `barrier`.
    Callbacks,
}

/// An entry. All zero is nobody.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Null while the thread does not wait.
    region: AtomicPtr<Region>,
    cookie: AtomicU64,
    since: AtomicU64,
    kind: AtomicUsize,
}

/// What an entry says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) region: *const Region,
    /// Done when the wait is.
    pub(crate) cookie: u64,
    /// By `clock::now`.
    pub(crate) since: u64,
    pub(crate) kind: usize,
}

impl Wait {
    pub(crate) fn kind(self) -> WaitKind {
        if self.kind == 0 { WaitKind::GracePeriod } else { WaitKind::Callbacks }
    }
}

impl Entry {
    /// Where region, cookie, time and kind are, for `mirror`.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) const PLACES: [usize; 4] = [
        std::mem::offset_of!(Entry, region),
        std::mem::offset_of!(Entry, cookie),
        std::mem::offset_of!(Entry, since),
        std::mem::offset_of!(Entry, kind),
    ];

    constant! {
        #[allow(dead_code, reason = "for tests/loom/orderings.rs: elsewhere memory comes zeroed")]
        pub(crate) fn new() -> Self {
            Self {
                region: AtomicPtr::new(ptr::null_mut()),
                cookie: AtomicU64::new(0),
                since: AtomicU64::new(0),
                kind: AtomicUsize::new(0),
            }
        }
    }

    pub(crate) fn set(&self, wait: Wait) {
        self.region.store(ptr::null_mut(), Ordering::Relaxed);
        // Release: who sees what follows sees that the entry was empty before. Pairs with the acquire
        // of `cookie`, `since` and `kind` in `get`.
        self.cookie.store(wait.cookie, Ordering::Release);
        self.since.store(wait.since, Ordering::Release);
        self.kind.store(wait.kind, Ordering::Release);
        // Release: pairs with the first acquire in `get`; the rest is whole.
        self.region.store(wait.region.cast_mut(), Ordering::Release);
    }

    pub(crate) fn get(&self) -> Wait {
        let region = self.region.load(Ordering::Acquire);
        Wait {
            cookie: self.cookie.load(Ordering::Acquire),
            since: self.since.load(Ordering::Acquire),
            kind: self.kind.load(Ordering::Acquire),
            region: if self.region.load(Ordering::Relaxed) == region {
                region
            } else {
                ptr::null_mut()
            },
        }
    }

    /// What the thread waits for, if it waits for this region.
    pub(crate) fn of(&self, region: &Region) -> Option<Wait> {
        let wait = self.get();
        ptr::eq(wait.region, region).then_some(wait)
    }

    /// Nobody waits: for an index that changes hands.
    pub(crate) fn clear(&self) {
        self.region.store(ptr::null_mut(), Ordering::Relaxed);
    }
}

/// The calling thread waits, until this is dropped. A thread without an index waits unseen.
#[derive(Debug)]
pub(crate) struct Waiting {
    entry: Option<(&'static Entry, Wait)>,
}

impl Waiting {
    pub(crate) fn begin(region: &'static Region, cookie: u64, kind: WaitKind) -> Self {
        let entry = threads::thread_index().and_then(threads::wait_entry).map(|entry| {
            let outer = entry.get();
            let kind = usize::from(kind == WaitKind::Callbacks);
            entry.set(Wait { region, cookie, since: clock::now(), kind });
            (entry, outer)
        });
        Self { entry }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((entry, outer)) = self.entry {
            entry.set(outer);
        }
    }
}
