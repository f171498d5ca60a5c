//! Which threads wait for which grace period.
//!
//! A thread that has to wait says so in an entry that goes with its index, before it first pauses:
//! five stores, by the thread alone. Who looks (a report) takes no lock and may see an entry
//! that is being changed: `region` is emptied first, written last, and checked after; and each of the words between
//! releases that it is empty. So who sees a word of another wait sees another region. (Each of the five pairs has its twins in
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

/// The call in which a thread waits. Numbers and names are those of `docs/abi.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitCall {
    /// [`Domain::synchronize`](crate::Domain::synchronize).
    Synchronize = 1,
    /// [`Domain::synchronize_timeout`](crate::Domain::synchronize_timeout).
    SynchronizeTimeout = 2,
    /// [`Domain::cond_synchronize`](crate::Domain::cond_synchronize).
    CondSynchronize = 3,
    /// [`Domain::barrier`](crate::Domain::barrier).
    Barrier = 4,
    /// A tracer waits for the last hit of a probe: `Probe::detach_wait`.
    DetachWait = 5,
    /// Likewise, `Probe::detach_timeout`.
    DetachTimeout = 6,
    /// Likewise of functions, `RegisteredOps::unregister_wait`.
    UnregisterWait = 7,
}

impl WaitCall {
    const ALL: [Self; 7] = [
        Self::Synchronize,
        Self::SynchronizeTimeout,
        Self::CondSynchronize,
        Self::Barrier,
        Self::DetachWait,
        Self::DetachTimeout,
        Self::UnregisterWait,
    ];

    /// The function's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Synchronize => "synchronize",
            Self::SynchronizeTimeout => "synchronize_timeout",
            Self::CondSynchronize => "cond_synchronize",
            Self::Barrier => "barrier",
            Self::DetachWait => "detach_wait",
            Self::DetachTimeout => "detach_timeout",
            Self::UnregisterWait => "unregister_wait",
        }
    }

    /// What is waited for there.
    pub(crate) fn kind(self) -> WaitKind {
        if self == Self::Barrier { WaitKind::Callbacks } else { WaitKind::GracePeriod }
    }
}

/// An entry. All zero is nobody.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Null while the thread does not wait.
    region: AtomicPtr<Region>,
    cookie: AtomicU64,
    since: AtomicU64,
    /// 0 or 1. A tool that is older than `call` reads this one alone, so it stays what it was.
    kind: AtomicUsize,
    call: AtomicUsize,
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
    pub(crate) call: usize,
}

impl Wait {
    pub(crate) fn kind(self) -> WaitKind {
        if self.kind == 0 { WaitKind::GracePeriod } else { WaitKind::Callbacks }
    }

    pub(crate) fn call(self) -> WaitCall {
        let known = WaitCall::ALL.into_iter().find(|call| *call as usize == self.call);
        // An entry that is being changed may have another's call.
        known.filter(|call| call.kind() == self.kind()).unwrap_or(match self.kind() {
            WaitKind::GracePeriod => WaitCall::Synchronize,
            WaitKind::Callbacks => WaitCall::Barrier,
        })
    }
}

impl Entry {
    /// Where region, cookie, time, kind and call are, for `mirror`.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) const PLACES: [usize; 5] = [
        std::mem::offset_of!(Entry, region),
        std::mem::offset_of!(Entry, cookie),
        std::mem::offset_of!(Entry, since),
        std::mem::offset_of!(Entry, kind),
        std::mem::offset_of!(Entry, call),
    ];

    constant! {
        #[allow(dead_code, reason = "for tests/loom/orderings.rs: elsewhere memory comes zeroed")]
        pub(crate) fn new() -> Self {
            Self {
                region: AtomicPtr::new(ptr::null_mut()),
                cookie: AtomicU64::new(0),
                since: AtomicU64::new(0),
                kind: AtomicUsize::new(0),
                call: AtomicUsize::new(0),
            }
        }
    }

    pub(crate) fn set(&self, wait: Wait) {
        self.region.store(ptr::null_mut(), Ordering::Relaxed);
        // Release: who sees what follows sees that the entry was empty before. Pairs with the acquire
        // of `cookie`, `since`, `kind` and `call` in `get`.
        self.cookie.store(wait.cookie, Ordering::Release);
        self.since.store(wait.since, Ordering::Release);
        self.kind.store(wait.kind, Ordering::Release);
        self.call.store(wait.call, Ordering::Release);
        // Release: pairs with the first acquire in `get`; the rest is whole.
        self.region.store(wait.region.cast_mut(), Ordering::Release);
    }

    pub(crate) fn get(&self) -> Wait {
        let region = self.region.load(Ordering::Acquire);
        Wait {
            cookie: self.cookie.load(Ordering::Acquire),
            since: self.since.load(Ordering::Acquire),
            kind: self.kind.load(Ordering::Acquire),
            call: self.call.load(Ordering::Acquire),
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
    pub(crate) fn begin(region: &'static Region, cookie: u64, call: WaitCall) -> Self {
        let entry = threads::thread_index().and_then(threads::wait_entry).map(|entry| {
            let outer = entry.get();
            let kind = usize::from(call.kind() == WaitKind::Callbacks);
            let call = call as usize;
            entry.set(Wait { region, cookie, since: clock::now(), kind, call });
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
