//! Backtraces of threads with the smallest signal stacks. A handler that needs more than there is kills this program.

#![cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]

#[path = "child/signal_stack.rs"]
mod signal_stack;

use gracepoint_rcu::{Domain, Progress, backtraces_by_signal};
use signal_stack::{BELOW, OWN, SignalStack, catch, frame, long};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// What a backtrace may take of a signal stack beside the kernel's frame.
const ROOM: usize = 512;
/// Backtraces of each thread.
const TIMES: u64 = 10;
/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for backtraces of whoever is in a section of `domain`, until it is over. How many there were.
fn ask(domain: &Domain, over: &AtomicBool) -> u64 {
    let _cookie = domain.start_poll();
    while domain.poll() == Progress::Advanced {}
    let (mut found, begun) = (0, Instant::now());
    while !over.load(Relaxed) {
        let stalls = domain.stalls();
        let culprits = stalls.iter().flat_map(|stall| &stall.culprits);
        found += culprits.filter(|culprit| culprit.backtrace.is_some()).count() as u64;
        assert!(
            begun.elapsed() < PATIENCE,
            "{found} backtraces, and {} on top",
            BELOW.load(Relaxed)
        );
    }
    found
}

/// A thread does this in a section of `domain`, while we ask for its backtraces.
fn check(domain: &'static Domain, inside: impl FnOnce() + Send) -> u64 {
    let (entered, over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let section = domain.read();
            entered.store(true, Relaxed);
            inside();
            over.store(true, Relaxed);
            drop(section);
        });
        while !entered.load(Relaxed) {
            thread::yield_now();
        }
        ask(domain, &over)
    })
}

/// May no other signal interrupt the handler of this one?
fn keeps_others_out(signal: libc::c_int) -> bool {
    // SAFETY: all-zero is a valid sigaction, which is written to; asks for what there is.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal, std::ptr::null(), &raw mut action), 0);
        action
    };
    // No handler can keep these out.
    let free = [libc::SIGKILL, libc::SIGSTOP];
    let others = (1..32).chain(libc::SIGRTMIN()..=libc::SIGRTMAX()).filter(|n| !free.contains(n));
    // SAFETY: looks into a set of ours.
    others.into_iter().all(|n| unsafe { libc::sigismember(&raw const action.sa_mask, n) } == 1)
}

#[test]
fn a_backtrace_fits_on_the_smallest_signal_stack() {
    static DOMAIN: Domain = Domain::new("small");
    let signal = libc::SIGRTMIN() + 5;
    backtraces_by_signal(signal).expect("a free signal");
    assert!(keeps_others_out(signal), "a third frame would not fit");
    catch(libc::SIGUSR1, long);
    let frame = frame();
    let alone = check(&DOMAIN, || {
        let stack = SignalStack::new(frame + ROOM);
        for _ in 0..TIMES {
            while stack.used() == 0 {
                std::hint::spin_loop();
            }
            stack.paint();
        }
    });
    assert!(alone > 0, "no backtrace came back");
    // On top of a handler of the program's, on a stack for two: 8 KiB where vectors are wide.
    let on_top = check(&DOMAIN, || {
        let stack = SignalStack::new(2 * frame + OWN + ROOM);
        for _ in 0..TIMES {
            // SAFETY: a signal with a handler, to this thread.
            assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
            stack.paint();
        }
    });
    assert!(on_top > 0 && BELOW.load(Relaxed) == TIMES);
}
