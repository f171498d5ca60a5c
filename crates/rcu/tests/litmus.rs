//! The axiom that everything rests on, tried on the machine: a compiler fence in one thread and
//! `membarrier` in the other forbid what two plain stores and loads allow (store buffering).
//!
//! ```text
//!   reader            updater
//!   x = 1             y = 1
//!   compiler fence    heavy barrier
//!   r1 = y            r2 = x          never r1 == 0 and r2 == 0
//! ```
//!
//! The twin has an ordinary fence where the heavy barrier was, which is not enough for
//! two, and must show the outcome: else this harness could not see it. The verdict depends on
//! what was observed and not on how long it took.
#![allow(clippy::print_stderr, reason = "reports what was observed")]

use std::sync::atomic::{AtomicU32, Ordering, compiler_fence, fence};
use std::thread;
use std::time::{Duration, Instant};

#[repr(align(128))]
struct Line(AtomicU32);

struct Litmus {
    x: Line,
    y: Line,
    r1: Line,
    r2: Line,
    /// The round that each thread may run, and those that they have finished.
    start: Line,
    done: [Line; 2],
}

/// In `start`: there are no more rounds.
const OVER: u32 = u32::MAX;

/// True once `line` has this value, false if it is `OVER`.
fn wait_for(line: &Line, value: u32) -> bool {
    let mut spins = 0_u32;
    loop {
        match line.0.load(Ordering::Acquire) {
            OVER => return false,
            now if now == value => return true,
            _ => spins += 1,
        }
        if spins.is_multiple_of(4096) {
            thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// A little disorder, so that the threads meet at many offsets.
fn stagger(round: u32, by: u32) {
    for _ in 0..(round.wrapping_mul(by) >> 16) % 24 {
        compiler_fence(Ordering::SeqCst);
        std::hint::black_box(());
    }
}

/// Where two threads do not run at the same time a round takes milliseconds, and finds nothing.
const ENOUGH: Duration = Duration::from_secs(10);

/// Runs up to `rounds`, in which `barrier` is the updater's; how often both saw nothing, in how many
/// rounds. Ends at the first if `until_seen`.
fn run(rounds: u32, until_seen: bool, barrier: impl Fn() + Sync) -> (u32, u32) {
    let line = || Line(AtomicU32::new(0));
    let litmus = Litmus {
        x: line(),
        y: line(),
        r1: line(),
        r2: line(),
        start: line(),
        done: [line(), line()],
    };
    let l = &litmus;
    thread::scope(|scope| {
        scope.spawn(move || {
            for round in 1..=rounds {
                if !wait_for(&l.start, round) {
                    return;
                }
                stagger(round, 40_503);
                l.x.0.store(1, Ordering::Relaxed);
                compiler_fence(Ordering::SeqCst);
                let seen = l.y.0.load(Ordering::Relaxed);
                l.r1.0.store(seen, Ordering::Relaxed);
                l.done[0].0.store(round, Ordering::Release);
            }
        });
        let (begin, mut forbidden) = (Instant::now(), 0);
        for round in 1..=rounds {
            l.x.0.store(0, Ordering::Relaxed);
            l.y.0.store(0, Ordering::Relaxed);
            l.start.0.store(round, Ordering::Release);
            stagger(round, 60_493);
            l.y.0.store(1, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            barrier();
            l.r2.0.store(l.x.0.load(Ordering::Relaxed), Ordering::Relaxed);
            wait_for(&l.done[0], round);
            if l.r1.0.load(Ordering::Relaxed) == 0 && l.r2.0.load(Ordering::Relaxed) == 0 {
                forbidden += 1;
            }
            if (until_seen && forbidden != 0) || begin.elapsed() > ENOUGH {
                l.start.0.store(OVER, Ordering::Release);
                return (forbidden, round);
            }
        }
        (forbidden, rounds)
    })
}

#[test]
fn membarrier_and_compiler_fence_are_a_barrier() {
    if !gracepoint_rcu::heavy_barrier() {
        eprintln!("no membarrier on this system: the axiom is not used, and not tried");
        return;
    }
    let (forbidden, rounds) = run(50_000, false, || assert!(gracepoint_rcu::heavy_barrier()));
    eprintln!("with membarrier: forbidden outcome {forbidden} times in {rounds} rounds");
    assert_eq!(forbidden, 0);
}

#[test]
fn without_it_the_outcome_shows() {
    if thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1) {
        eprintln!("one processor: store buffering cannot be seen here");
        return;
    }
    for attempt in 1..=100 {
        let (forbidden, round) = run(200_000, true, || fence(Ordering::SeqCst));
        if forbidden != 0 {
            eprintln!("with a fence instead: seen in attempt {attempt}, round {round}");
            return;
        }
    }
    panic!("the twin never showed the outcome, so the other test proves nothing here");
}
