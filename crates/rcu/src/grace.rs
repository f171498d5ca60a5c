//! The grace-period machine: a sequence word, two ranks, and one bounded step.
//!
//! # State
//!
//! `seq` is as in the kernel (`rcu_seq`): its low two bits are the phase of the running grace
//! period (0 idle, 1 first scan, 2 second scan) and the rest counts grace periods. Only the
//! driver (who holds the engine's lock) writes it. `awaited` has a bit for each rank
//! that this grace period has not yet *confirmed* empty.
//!
//! ```text
//!          request                both confirmed
//!   IDLE ───────────► SCAN1 ───────────────────────────────► IDLE (seq + 4)
//!                       │ the inactive rank confirmed,          ▲
//!                       │ the active one not: flip              │
//!                       └────────────────► SCAN2 ───────────────┘
//!                                            the old rank confirmed
//! ```
//!
//! # Why a confirmed rank is enough
//!
//! *Confirm*: read the `unlock`s of all slots; heavy barrier `H`; read the `lock`s of all
//! slots; a rank whose two sums are equal is confirmed. `H` makes every thread of the
//! process execute a full barrier at some point `p` of its program (or, where both sides
//! fence, it is a SeqCst fence, and `p` is the fence in the thread's `enter`). For a section
//! `S` of that rank:
//!
//! * `S`'s increment of `lock` is before `p`: the second read sees it. If its `unlock` was
//!   seen too, by the first read, then it was made before `H` began, so all of `S`
//!   was done before `H` ended. If it was not seen, the sums differ (each `unlock` seen has its
//!   `lock` seen, so no other section can make up for it) and the rank is not confirmed.
//! * It is after `p`: then all of `S` comes after `p`, and `S` sees everything that was
//!   written before `H`, the updater's removal included. It need not be waited for.
//!
//! An owned section may go from thread to thread. It is counted by atomic additions, and its end with
//! release, after all that it did on whatever thread; and whoever has it after the thread that entered sees
//! what that one saw at its `p`. So both cases hold for it too, with the `p` of the thread that entered.
//!
//! So once a rank was confirmed *after* the grace period began, no section of that rank that
//! could hold what was removed before it began is left. Both ranks confirmed, in any order
//! and by the same scan or by different ones, end the grace period. This does not depend on the
//! flip, which is for progress only.
//!
//! What goes wrong without each part (every line is a twin in `tests/loom.rs` and in `tests/model`):
//! * `lock`s read first: a section that begins and ends between the two reads makes up
//!   for one that is still open.
//! * No barrier between: a section's increment may still sit in its processor's store buffer.
//! * Only the active rank confirmed: a reader that loaded the rank long ago, slept, and
//!   entered the other one (before this grace period) is missed. This is why there are two scans.
//! * A cookie taken while a grace period runs that accepts the end of *that* one: it may have
//!   confirmed a rank before the removal.
//!
//! # Why it ends
//!
//! The inactive rank gets no new sections except from threads that loaded the rank
//! before the last flip, at most one each. When it is confirmed, the flip makes the active
//! rank the inactive one. So each wait is for a fixed set of sections. Waiting is done with plain
//! reads; a heavy barrier is paid for only when those say that the rank looks empty, so a grace
//! period costs one heavy barrier when nobody reads and about three when somebody does.
//!
//! # Cookies
//!
//! `snapshot` is a SeqCst fence and a load of `seq`. It pairs with `H`, which follows the
//! driver's store of SCAN1: if the snapshot reads *idle*, its fence is before `H`, and
//! so what its caller removed before is seen by every section after `p`. Hence: idle → the
//! end of the next grace period; running → the end of the one after. `is_done` is an acquire
//! load and pairs with the release store of the end: what follows it comes after all sections
//! that were waited for.

use crate::counters::{ActiveRank, RANKS};
use crate::sync::{AtomicU64, AtomicUsize, Ordering, constant, fence};

/// The bits of `seq` that hold the phase.
pub(crate) const PHASE: u64 = 3;
const SCAN1: u64 = 1;
pub(crate) const SCAN2: u64 = 2;
/// What one grace period adds to `seq`.
const ONE: u64 = PHASE + 1;
const ALL_RANKS: usize = (1 << RANKS) - 1;

/// The number of the grace period that runs when the sequence word is this; `None` if none runs.
pub(crate) fn number(sequence: u64) -> Option<u64> {
    (sequence & PHASE != 0).then_some(sequence / ONE + 1)
}

/// The readers that a grace period has to look at.
pub(crate) trait Readers {
    /// Sections left, per rank, summed over all slots.
    fn unlocks(&self) -> [u64; RANKS];
    /// Sections entered, per rank, summed over all slots.
    fn locks(&self) -> [u64; RANKS];
    /// The barrier between the two halves of a scan. False if it could not be had;
    /// then nothing is concluded from the scan.
    fn heavy_barrier(&self) -> bool;
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is asked for.
    Idle,
    /// A grace period ended.
    Ended,
    /// A grace period moved on; step again at once.
    Advanced,
    /// Sections are open. The number of times in a row that this was the answer.
    Waiting(usize),
}

/// One sequence of grace periods.
#[derive(Debug)]
pub(crate) struct Grace {
    pub(crate) rank: ActiveRank,
    seq: AtomicU64,
    /// The largest cookie that somebody wants done.
    needed: AtomicU64,
    awaited: AtomicUsize,
    attempts: AtomicUsize,
}

impl Grace {
    /// Where the sequence word, the awaited ranks and the active rank are, for `mirror`.
    pub(crate) const PLACES: [usize; 3] = [
        std::mem::offset_of!(Grace, seq),
        std::mem::offset_of!(Grace, awaited),
        std::mem::offset_of!(Grace, rank) + ActiveRank::PLACE,
    ];

    constant! {
        pub(crate) fn new() -> Self {
            Self {
                rank: ActiveRank::new(),
                seq: AtomicU64::new(0),
                needed: AtomicU64::new(0),
                awaited: AtomicUsize::new(0),
                attempts: AtomicUsize::new(0),
            }
        }
    }

    /// The cookie that is done once every section that is open now has ended.
    pub(crate) fn snapshot(&self) -> u64 {
        // Pairs with the heavy barrier of the grace period that will be waited for. Without
        // it the caller's removal may become visible after that barrier although the load
        // below still reads idle.
        fence(Ordering::SeqCst);
        (self.seq.load(Ordering::Acquire) + ONE + PHASE) & !PHASE
    }

    /// Asks for `cookie` to become done.
    pub(crate) fn request(&self, cookie: u64) {
        // Relaxed: the caller drives, or whoever drives comes by again.
        self.needed.fetch_max(cookie, Ordering::Relaxed);
    }

    /// Whether the grace period of `cookie` has ended.
    pub(crate) fn is_done(&self, cookie: u64) -> bool {
        // Pairs with the release store in `finish`.
        self.seq.load(Ordering::Acquire) >= cookie
    }

    /// Whether somebody waits for a grace period.
    pub(crate) fn is_wanted(&self) -> bool {
        self.needed.load(Ordering::Relaxed) > self.seq.load(Ordering::Relaxed)
    }

    /// How many grace periods have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.seq.load(Ordering::Relaxed) / ONE
    }

    /// The number of the grace period that runs. The first one's is 1, and a cookie divided by four is
    /// the number of the one that it waits for.
    pub(crate) fn running(&self) -> Option<u64> {
        number(self.seq.load(Ordering::Relaxed))
    }

    /// The sequence word, for reports.
    pub(crate) fn sequence(&self) -> u64 {
        self.seq.load(Ordering::Relaxed)
    }

    /// A bit for each rank that the running grace period waits for at this moment; 0 if
    /// none is running.
    pub(crate) fn waited_ranks(&self) -> usize {
        let awaited = self.awaited.load(Ordering::Relaxed);
        let inactive = 1 << (1 - self.rank.get());
        if awaited & inactive != 0 { inactive } else { awaited }
    }

    /// One bounded step: at most two reads of every counter and one heavy barrier. Never
    /// waits. Only for the driver.
    pub(crate) fn step(&self, readers: &impl Readers) -> Step {
        let seq = self.seq.load(Ordering::Relaxed);
        if seq & PHASE == 0 {
            if !self.is_wanted() {
                return Step::Idle;
            }
            self.awaited.store(ALL_RANKS, Ordering::Relaxed);
            self.attempts.store(0, Ordering::Relaxed);
            // Before the heavy barrier in `confirm`, with which `snapshot` pairs.
            self.seq.store(seq + SCAN1, Ordering::Relaxed);
        } else if !Self::looks_empty(readers, 1 - self.rank.get()) {
            return self.waiting();
        }
        self.confirm(readers)
    }

    /// Whether a rank seems to be empty: a hint, without a barrier, that decides nothing.
    fn looks_empty(readers: &impl Readers, rank: usize) -> bool {
        readers.unlocks()[rank] == readers.locks()[rank]
    }

    /// The scan that decides (see the module's text), and the move that follows from it.
    fn confirm(&self, readers: &impl Readers) -> Step {
        let unlocks = readers.unlocks();
        // Pairs with the light barriers in `counters::{enter, leave}` and the fence in `snapshot`.
        if !readers.heavy_barrier() {
            return self.waiting();
        }
        let locks = readers.locks();

        let mut awaited = self.awaited.load(Ordering::Relaxed);
        for rank in 0..RANKS {
            if unlocks[rank] == locks[rank] {
                awaited &= !(1 << rank);
            }
        }
        self.awaited.store(awaited, Ordering::Relaxed);

        let active = self.rank.get();
        if awaited == 0 {
            self.finish();
            Step::Ended
        } else if awaited == 1 << active {
            self.flip(active);
            Step::Advanced
        } else {
            self.waiting()
        }
    }

    fn flip(&self, active: usize) {
        self.rank.set(1 - active);
        let seq = self.seq.load(Ordering::Relaxed);
        self.seq.store((seq & !PHASE) + SCAN2, Ordering::Relaxed);
    }

    fn finish(&self) {
        let seq = self.seq.load(Ordering::Relaxed);
        // Release: pairs with the acquire in `is_done`. The reads of the `unlock`s that were
        // waited for are before it, by way of the heavy barrier.
        self.seq.store((seq & !PHASE) + ONE, Ordering::Release);
    }

    fn waiting(&self) -> Step {
        let attempts = self.attempts.load(Ordering::Relaxed).saturating_add(1);
        self.attempts.store(attempts, Ordering::Relaxed);
        Step::Waiting(attempts)
    }

    /// Makes a running grace period confirm everything again: for a forked child whose
    /// parent's driver may have been in the middle of a step. Nobody else is there.
    pub(crate) fn restart_scan(&self) {
        if self.seq.load(Ordering::Relaxed) & PHASE != 0 {
            self.awaited.store(ALL_RANKS, Ordering::Relaxed);
        }
    }

    /// Ends whatever runs: for a domain that is being dropped, in which no section is open
    /// and which nobody else can reach.
    pub(crate) fn end_unobserved(&self) {
        let seq = self.seq.load(Ordering::Relaxed);
        if seq & PHASE != 0 {
            self.finish();
        }
        self.awaited.store(0, Ordering::Relaxed);
        self.needed.store(0, Ordering::Relaxed);
    }
}
