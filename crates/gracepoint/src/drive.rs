//! Who drives the grace periods of [`TRACE`] for probes: a thread of its own that exists while
//! something waits for a grace period, and for [`LINGER`] longer. Why it is not the domain's own thread:
//! `DESIGN.md`.
//!
//! It is started by whoever first leaves something behind, blocks all signals, and belongs to one
//! process: a forked child has none and starts its own when it needs one. What was left behind before a
//! fork is the parent's: in the child it stays where it is, for what a probe captured (a file, a
//! connection) is dropped once and not once in each process.

use crate::key::TRACE;
use crate::sys;
use gracepoint_rcu::{InReadSection, Progress, WaitCall};
use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::time::Duration;

/// How long the thread stays with nothing to do.
const LINGER: Duration = Duration::from_secs(1);

/// Pid of the process whose thread drives; 0 for none.
static DRIVER: AtomicU32 = AtomicU32::new(0);
/// 1 while there may be something to do; the thread sleeps on it while it is 0.
static WORK: AtomicU32 = AtomicU32::new(0);

static WAITING: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// What waits for grace periods on behalf of probes: how many callbacks, and how many bytes they hold.
pub(crate) fn waiting() -> (u64, usize) {
    (WAITING.load(Relaxed), BYTES.load(Relaxed))
}

/// Runs `then` on the callback thread after a grace period. It keeps `bytes` of memory beside itself
/// until then. Never waits; allocates.
pub(crate) fn after_grace_period(bytes: usize, then: impl FnOnce() + Send + 'static) {
    let pid = std::process::id();
    let bytes = bytes + callback_bytes(&then);
    WAITING.fetch_add(1, Relaxed);
    BYTES.fetch_add(bytes, Relaxed);
    TRACE.call(move || {
        if std::process::id() != pid {
            let _leaked = ManuallyDrop::new(then);
            return;
        }
        let _waited = Waited(bytes);
        then();
    });
    wake(pid);
}

/// Counts a callback off when it has run, to its end or to a panic.
struct Waited(usize);

impl Drop for Waited {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Relaxed);
        BYTES.fetch_sub(self.0, Relaxed);
    }
}

/// What queueing a callback takes: three words, the closure, and the two that are added here.
fn callback_bytes<F>(_: &F) -> usize {
    5 * size_of::<usize>() + size_of::<F>()
}

/// Waits until every section that is open now has ended; at most so long. False if that was not enough.
///
/// # Errors
/// Where this thread is inside a section itself.
pub(crate) fn wait(call: WaitCall, most: Option<Duration>) -> Result<bool, InReadSection> {
    match most {
        None => TRACE.synchronize_in(call).map(|()| true),
        Some(most) => TRACE.synchronize_timeout_in(call, most),
    }
}

/// Sees to it that a thread of this process drives.
fn wake(pid: u32) {
    // SeqCst: what was queued comes before, and the thread looks for work after it has cleared the
    // word, so that either it finds the work or we find the word cleared.
    if WORK.swap(1, SeqCst) == 0 {
        sys::wake(&WORK);
    }
    let driver = DRIVER.load(SeqCst);
    if driver != pid && DRIVER.compare_exchange(driver, pid, SeqCst, SeqCst).is_ok() {
        let thread = std::thread::Builder::new().name("gracepoint-rcu".into());
        if sys::with_signals_blocked(|| thread.spawn(run)).is_err() {
            // No thread is to be had: what waits goes on waiting until the next call finds one.
            DRIVER.store(0, SeqCst);
        }
    }
}

fn run() {
    loop {
        WORK.store(0, SeqCst);
        match TRACE.drive() {
            Progress::Advanced => {}
            Progress::Pending(delay) => std::thread::sleep(delay),
            Progress::Idle => {
                if sys::sleep_while_zero(&WORK, LINGER) || WORK.load(SeqCst) != 0 {
                    continue;
                }
                DRIVER.store(0, SeqCst);
                // Work that came before that store found a driver; it is ours to see to.
                let pid = std::process::id();
                if WORK.load(SeqCst) == 0
                    || DRIVER.compare_exchange(0, pid, SeqCst, SeqCst).is_err()
                {
                    return;
                }
            }
        }
    }
}

/// In a forked child: what waits is the parent's.
pub(crate) fn child_after_fork() {
    WAITING.store(0, Relaxed);
    BYTES.store(0, Relaxed);
}
