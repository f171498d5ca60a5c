//! What `blind_spot` leaves to chance, one by one: after every single instruction of a call that is traced, from the sled's first
//! one to the last, the thread stands still, its operations are taken off and what they captured is freed if a grace period ends. The
//! processor itself stops there, by the trap flag; for how long says whoever takes off.

use crate::blind_spot::{BAD, CALLS, checked};
use crate::traced;
use gracepoint::{FunctionOps, FunctionSet};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::Duration;

#[path = "../../../src/arch/steps_x86_64.rs"]
mod trap;

/// After which instruction the thread stops, and how many there were.
static AT: AtomicU64 = AtomicU64::new(0);
static STEP: AtomicU64 = AtomicU64::new(0);
/// Whether it stands there. Acquire and release: what one of the two has done the other sees.
static STANDS: AtomicU64 = AtomicU64::new(0);
const RUNS: u64 = 0;
const STOPPED: u64 = 1;

extern "C" fn stepped(_signal: libc::c_int) {
    if STEP.fetch_add(1, Relaxed) + 1 == AT.load(Relaxed) {
        STANDS.store(STOPPED, Release);
        while STANDS.load(Acquire) == STOPPED {
            thread::yield_now();
        }
    }
}

/// Which thread makes the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Caller {
    /// One that has been here before.
    Known,
    /// One whose first call it is.
    Fresh,
}

/// What was seen of one stop.
struct Stop {
    /// Instructions of the whole call.
    steps: u64,
    /// Did a grace period end while the thread stood there?
    over: bool,
}

/// Takes off after instruction `at` of a call, and waits for a grace period as long as this.
fn stop_at(set: &FunctionSet, caller: Caller, at: u64, wait: Duration) -> Stop {
    let ops = FunctionOps::on(set).on_entry(checked(&CALLS)).on_exit(checked(&CALLS));
    let ops = ops.register().expect("registered");
    AT.store(at, Relaxed);
    let thread = thread::spawn(move || {
        if caller == Caller::Known {
            traced::leaf(1);
        }
        STEP.store(0, Relaxed);
        // SAFETY: SIGTRAP has a handler, which returns.
        unsafe { trap::trap_each_instruction() };
        traced::leaf(2);
        trap::trap_no_more();
        STEP.load(Relaxed)
    });
    while STANDS.load(Acquire) != STOPPED && !thread.is_finished() {
        thread::yield_now();
    }
    let mut over = false;
    let mut ops = Some(ops);
    if STANDS.load(Acquire) == STOPPED {
        let ops = ops.take().expect("not taken off yet");
        over = ops.unregister_wait(wait).expect("not from a callback");
        let calls = CALLS.load(Relaxed);
        STANDS.store(RUNS, Release);
        let steps = thread.join().expect("it ends well");
        let later = CALLS.load(Relaxed) - calls;
        assert!(!over || later == 0, "{later} calls after the end, stopped at {at} of {steps}");
        return Stop { steps, over };
    }
    let steps = thread.join().expect("it ends well");
    Stop { steps, over }
}

pub(crate) fn run() {
    // SAFETY: a handler for a signal that nobody else has.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = stepped as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut());
    }
    let set = traced::all().find().expect("found before");
    // The canary's window comes before its sections are open: until there nothing has to be waited out.
    let wait = if cfg!(feature = "canary") { 60_000 } else { 2 };
    let wait = Duration::from_millis(wait);
    for caller in [Caller::Known, Caller::Fresh] {
        let steps = stop_at(&set, caller, u64::MAX, Duration::ZERO).steps;
        // Outside of all sections: it is over, however long that takes.
        let long = Duration::from_secs(60);
        for at in [1, steps - 1] {
            assert!(stop_at(&set, caller, at, long).over, "{caller:?}: {at} of {steps} is outside");
        }
        // A thread that registers itself on the way runs through far more: not through each of them.
        let stride = usize::try_from(steps / 200 + 1).expect("few");
        let stops: Vec<Stop> =
            (2..steps - 1).step_by(stride).map(|at| stop_at(&set, caller, at, wait)).collect();
        let over = stops.iter().filter(|stop| stop.over).count();
        println!("{caller:?}: {steps} steps, stopped at {}, freed at {over}", stops.len());
    }
    assert_eq!(BAD.load(Relaxed), 0, "used after it was freed");
    println!("no instruction is a blind spot");
}
