//! Grace periods in a machine with store buffers, in which `membarrier` is an instruction:
//! every schedule of small programs.
//!
//! Loom (`tests/loom.rs`) explores what relaxed loads may see and takes both halves of the asymmetric
//! barrier for SeqCst fences. Here it is the other way round: memory is that of x86, and the light
//! barrier is nothing at all, as it is on the machine, and all order comes from the updater's system call. The text of
//! `src/grace.rs`, `src/counters.rs` and `src/trylock.rs` is compiled as it ships.
//!
//! What this machine cannot show: a heavy barrier *before* both halves of a scan, or none in the second
//! scan of a grace period, is no error here, because x86 does its loads in order. (The argument
//! in `src/grace.rs` does not rest on that.)
//!
//! A *twin* lacks one thing, and must be caught. A compiler fence that is missing is shown by
//! code in the order that it forbids.

macro_rules! shipped {
    ($($name:ident $path:literal),*) => {$(
        #[allow(dead_code, unreachable_pub, reason = "compiled as it ships; this uses a part")]
        #[path = $path]
        mod $name;
    )*};
}

shipped!(
    counters "../../src/counters.rs",
    grace "../../src/grace.rs",
    trylock "../../src/trylock.rs"
);

mod blind_spot;
mod door;
mod grace_periods;
mod srcu;
mod stale_data;
mod teardown_stall;
mod world;

use door::{arch, barrier, sync};
use gracepoint_model::Explorer;

/// For programs whose schedules are too many for every run: so many preemptions, or as many as there
/// can be with `GRACEPOINT_MODEL=all`.
fn bounded(preemptions: u32) -> Explorer {
    let explorer = Explorer::new();
    let all = std::env::var_os("GRACEPOINT_MODEL").is_some_and(|wanted| wanted == "all");
    if all { explorer } else { explorer.preemptions(preemptions) }
}

/// Who executes barriers; see `src/barrier.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Membarrier,
    Fence,
}

/// What is left out, or is otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twin {
    /// Nothing: as it ships.
    Sound,
    /// The heavy barrier.
    NoHeavyBarrier,
    /// A fence of the updater's own in place of `membarrier`.
    FenceForMembarrier,
    /// The heavy barrier after both halves of a scan.
    BarrierLast,
    /// A scan reads the locks before the barrier and the unlocks after it.
    LocksFirst,
    /// The scan of the rank that was inactive when the grace period began.
    NoFirstScan,
    /// The scan of the old rank after the flip.
    NoSecondScan,
    /// What was confirmed in the grace period before counts in this one.
    OldConfirmations,
    /// `seq` says that a grace period runs only after its first scan.
    LateBegin,
    /// A cookie accepts the end of the grace period that was running when it was taken.
    EarlyCookie,
    /// The fence before a cookie.
    NoSnapshotFence,
    /// The compiler fence in `enter`: the section's loads come before its increment.
    NoFenceInEnter,
    /// The compiler fence in `leave`: the section's loads come after its increment.
    NoFenceInLeave,
    /// An increment is a load and a store, and a signal handler comes between.
    SplitIncrement,
    /// The shared slot is counted by plain increments.
    SharedSlotNotAtomic,
    /// A thread's slot comes into the scans' view after its first increment.
    LateHighWater,
    /// A thread that has given its slot back goes on using it.
    SlotAfterGivingBack,
    /// A step that comes late stores what it has found, whichever grace period runs by then.
    LateConfirmation,
    /// In the fence form: the reader's fence.
    NoReaderFence,
}
