//! The grace-period machine: a sequence word, two ranks, and one bounded step.
//!
//! # State
//!
//! `seq` is like the kernel's (`rcu_seq`): its low two bits say what the running grace period is about and the
//! rest counts grace periods. They are the ranks that it has not yet *confirmed* empty, a bit each; none: it is idle.
//!
//! ```text
//!          request              both confirmed, by H
//!   IDLE ──────────► BOTH ─────────────────────────────► IDLE (seq + 4)
//!                      │ one confirmed, by H                ▲
//!                      ▼          the other, too, without   │
//!                     ONE ──────────────────────────────────┘
//!                      if it is the active rank: flip, so that it drains
//! ```
//!
//! # Who may step
//!
//! Anybody, and any number at once: a step reads `seq`, scans, and moves `seq` by compare-exchange *from what
//! it had read*. So what a scan confirms counts in the grace period that ran before the scan began, or
//! not at all, however late its thread gets on. (A step that stored what it had found would give a grace
//! period that has only just begun the confirmations of the one before: a twin.)
//! The engine's lock keeps steps from being made twice in vain; a grace period does not depend on who
//! has it, and if that thread is stopped in the middle, others step beside it (`Engine::poll`).
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
//!   seen too, by the first read, which acquires what the `unlock` released, all of `S`
//!   was done before. If it was not seen, the sums differ (each `unlock` seen has its
//!   `lock` seen, so no other section can make up for it) and the rank is not confirmed.
//! * It is after `p`: then all of `S` comes after `p`, and `S` sees everything that was
//!   written before `H`, the updater's removal included. It need not be waited for.
//!
//! Nothing in this asks for the `unlock`s to be read *before* `H`. So when one rank is left, which is after an `H` of this
//! grace period (of whichever thread: `seq` says so, released by that thread and acquired by this), the
//! other is confirmed without another: `unlock`s, then `lock`s. That is the usual end where readers are
//! busy, and it is why a grace period takes one heavy barrier, and not one for each rank.
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
//! * No barrier: a section's increment may still sit in its processor's store buffer.
//! * `unlock`s that are not released, or not acquired, or an end (of `seq`) that is not released: the last reads of a
//!   section come after what follows its end.
//! * `seq` not acquired: this thread reads `lock`s that are older than another's `H`.
//! * Only the active rank confirmed: a reader that loaded the rank long ago, slept, and
//!   entered the other one (before this grace period) is missed. This is why there are two scans.
//! * A cookie taken while a grace period runs that accepts the end of *that* one: it may have
//!   confirmed a rank before the removal.
//!
//! # Why it ends
//!
//! The inactive rank gets no new sections except from threads that loaded the rank
//! before the last flip, at most one each. When it is confirmed, the flip makes the active
//! rank the inactive one. So each wait is for a fixed set of sections. A step that was stopped may flip late, and
//! for nothing; the next step sees that the rank which is waited for is active, and flips back: once for each such
//! step. Waiting is done with plain
//! reads; a heavy barrier is paid for at the beginning, and again only where both ranks were in use then (a straggler) and
//! those reads say that the inactive one looks empty.
//!
//! # Cookies
//!
//! `snapshot` is a SeqCst fence and a load of `seq`. It pairs with `H`, which follows a load of `seq` that
//! says that the grace period runs: if the snapshot reads *idle*, its fence is before `H`, and
//! so what its caller removed before is seen by every section after `p`. Hence: idle → the
//! end of the next grace period; running → the end of the one after. `is_done` is an acquire
//! load and pairs with the release of each confirmation (those before the last one by way of its being a
//! read-modify-write): what follows it comes after all sections that were waited for.

use crate::counters::{ActiveRank, RANKS};
use crate::sync::{AtomicU64, AtomicUsize, Ordering, constant, fence, unexplored};

/// The bits of `seq` that say which ranks are awaited: all of them, when a grace period begins.
const AWAITED: u64 = (1 << RANKS) - 1;
/// What one grace period adds to `seq`.
const ONE: u64 = AWAITED + 1;

/// The number of the grace period that runs when the sequence word is this; `None` if none runs.
pub(crate) fn number(sequence: u64) -> Option<u64> {
    (sequence & AWAITED != 0).then_some(sequence / ONE + 1)
}

/// The number of the grace period that a cookie waits for.
pub(crate) fn number_of_cookie(cookie: u64) -> u64 {
    cookie / ONE
}

/// The readers that a grace period has to look at.
pub(crate) trait Readers {
    /// Sections left, per rank, summed over all slots; read with acquire.
    fn unlocks(&self) -> [u64; RANKS];
    /// Sections entered, per rank, summed over all slots.
    fn locks(&self) -> [u64; RANKS];
    /// The barrier between the two halves of a scan. False if it could not be had;
    /// then nothing is concluded from the scan.
    fn heavy_barrier(&self) -> bool;
}

/// Counts the heavy barriers of a step.
#[derive(Debug)]
pub(crate) struct Counting<'r, R> {
    pub(crate) readers: &'r R,
    pub(crate) barriers: &'r unexplored::AtomicU64,
}

impl<R: Readers> Readers for Counting<'_, R> {
    fn unlocks(&self) -> [u64; RANKS] {
        self.readers.unlocks()
    }

    fn locks(&self) -> [u64; RANKS] {
        self.readers.locks()
    }

    fn heavy_barrier(&self) -> bool {
        self.barriers.fetch_add(1, Ordering::Relaxed);
        self.readers.heavy_barrier()
    }
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
    attempts: AtomicUsize,
    /// The number of the latest grace period that flipped; for reports.
    flipped: unexplored::AtomicU64,
}

impl Grace {
    /// Where the sequence word, the number of the latest that flipped and the active rank are, for `mirror`.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) const PLACES: [usize; 3] = [
        std::mem::offset_of!(Grace, seq),
        std::mem::offset_of!(Grace, flipped),
        std::mem::offset_of!(Grace, rank) + ActiveRank::PLACE,
    ];

    constant! {
        pub(crate) fn new() -> Self {
            Self {
                rank: ActiveRank::new(),
                seq: AtomicU64::new(0),
                needed: AtomicU64::new(0),
                attempts: AtomicUsize::new(0),
                flipped: unexplored::AtomicU64::new(0),
            }
        }
    }

    /// The cookie that is done once every section that is open now has ended.
    pub(crate) fn snapshot(&self) -> u64 {
        // Pairs with the heavy barrier of the grace period that will be waited for. Without
        // it the caller's removal may become visible after that barrier although the load
        // below still reads idle. (Relaxed: it only tells which end to wait for.)
        fence(Ordering::SeqCst);
        (self.seq.load(Ordering::Relaxed) + ONE + AWAITED) & !AWAITED
    }

    /// Asks for `cookie` to become done.
    pub(crate) fn request(&self, cookie: u64) {
        // Relaxed: the caller drives, or whoever drives comes by again.
        self.needed.fetch_max(cookie, Ordering::Relaxed);
    }

    /// Whether the grace period of `cookie` has ended.
    pub(crate) fn is_done(&self, cookie: u64) -> bool {
        // Pairs with the releases in `confirm`.
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

    /// The number of the grace period that runs. The first one's is 1.
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
        let awaited = (self.seq.load(Ordering::Relaxed) & AWAITED) as usize;
        let inactive = 1 << (1 - self.rank.get());
        if awaited & inactive != 0 { inactive } else { awaited }
    }

    /// Whether the running grace period, of this number, has sent new sections to the other rank.
    pub(crate) fn has_flipped(&self, number: u64) -> bool {
        self.flipped.load(Ordering::Relaxed) == number
    }

    /// One bounded step: at most two reads of every counter and one heavy barrier. Never
    /// waits. Any number may be under way.
    pub(crate) fn step(&self, readers: &impl Readers) -> Step {
        // Acquire: pairs with the exchange in `advance`, and the heavy barrier before that; what another's heavy
        // barrier has made visible is seen.
        let mut seq = self.seq.load(Ordering::Acquire);
        let active = self.rank.get();
        let awaited = seq & AWAITED;
        if awaited == 0 {
            if !self.is_wanted() {
                return Step::Idle;
            }
            self.attempts.store(0, Ordering::Relaxed);
            // Before the heavy barrier in `confirm`, with which `snapshot` pairs.
            if !self.advance(seq, seq | AWAITED) {
                return Step::Advanced;
            }
            seq |= AWAITED;
        } else if awaited != AWAITED {
            return self.wait_for_last(seq, active, readers);
        } else if !Self::is_empty(readers, 1 - active) {
            return self.waiting();
        }
        self.confirm(seq, active, readers)
    }

    /// Whether all sections of a rank have ended that were entered before the last heavy barrier. If there
    /// was none in this grace period, a hint that decides nothing.
    fn is_empty(readers: &impl Readers, rank: usize) -> bool {
        // In this order. The acquire in `unlocks` pairs with the release in `counters::leave`.
        let unlocks = readers.unlocks();
        unlocks[rank] == readers.locks()[rank]
    }

    /// One rank is left, and a heavy barrier was executed in this grace period.
    fn wait_for_last(&self, seq: u64, active: usize, readers: &impl Readers) -> Step {
        let last = (seq & AWAITED).trailing_zeros() as usize;
        if last == active {
            self.flip(seq, active);
        }
        if !Self::is_empty(readers, last) {
            return self.waiting();
        }
        if self.advance(seq, (seq & !AWAITED) + ONE) { Step::Ended } else { Step::Advanced }
    }

    /// The scan that decides (see the module's text), and the move that follows from it. `seq` was read before.
    fn confirm(&self, seq: u64, active: usize, readers: &impl Readers) -> Step {
        let unlocks = readers.unlocks();
        // Pairs with the light barrier in `counters::enter` and the fence in `snapshot`.
        if !readers.heavy_barrier() {
            return self.waiting();
        }
        let locks = readers.locks();

        let mut awaited = seq & AWAITED;
        for rank in 0..RANKS {
            if unlocks[rank] == locks[rank] {
                awaited &= !(1 << rank);
            }
        }
        let count = seq & !AWAITED;
        if awaited == seq & AWAITED {
            self.waiting()
        } else if !self.advance(seq, if awaited == 0 { count + ONE } else { count | awaited }) {
            Step::Advanced // Somebody else did.
        } else if awaited == 0 {
            Step::Ended
        } else if awaited == 1 << active {
            self.flip(seq, active);
            Step::Advanced
        } else {
            self.waiting()
        }
    }

    /// Moves on from what was read before, unless that was done meanwhile.
    fn advance(&self, from: u64, to: u64) -> bool {
        // Release: pairs with the acquire in `is_done`. The (acquiring) reads of the `unlock`s that were waited for
        // are before it; without it, what follows the end of a grace period may come before its sections' last
        // reads. That can be where the last rank was found empty by plain reads: elsewhere the heavy barrier of
        // the same step is between them, and a fence for the acquire in `step`, too (both are in `tests/loom.rs`).
        self.seq.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    fn flip(&self, seq: u64, active: usize) {
        self.rank.set(1 - active);
        self.flipped.store(seq / ONE + 1, Ordering::Relaxed);
    }

    fn waiting(&self) -> Step {
        let attempts = self.attempts.load(Ordering::Relaxed).saturating_add(1);
        self.attempts.store(attempts, Ordering::Relaxed);
        Step::Waiting(attempts)
    }

    /// Ends whatever runs: for a domain that is being dropped, in which no section is open
    /// and which nobody else can reach.
    pub(crate) fn end_unobserved(&self) {
        // Relaxed: whatever let nobody else reach it comes between.
        let idle = (self.seq.load(Ordering::Relaxed) + AWAITED) & !AWAITED;
        self.seq.store(idle, Ordering::Relaxed);
        self.needed.store(0, Ordering::Relaxed);
    }
}
