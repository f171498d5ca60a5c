//! A program with small signal stacks, that samples itself: there is room for the kernel's frame of one signal and
//! [`ROOM`] bytes more, above a page that must not be touched. A handler that needs more kills the program.
//!
//! Then a sample comes while a handler of the program's runs, on a stack for two frames, as
//! three of the kernel's do not fit on that of the standard library where vectors are wide.

#[path = "../../../rcu/tests/child/signal_stack.rs"]
mod signal_stack;

use signal_stack::{BELOW, OWN, SignalStack, catch, frame, long};
use std::sync::atomic::Ordering::Relaxed;

/// What a sample may take of a signal stack beside the kernel's frame.
const ROOM: usize = 512;
/// Samples that each thread waits for.
const SAMPLES: u64 = 10;

/// Samples on a stack that has room for one.
fn alone(frame: usize) {
    let stack = SignalStack::new(frame + ROOM);
    let mut most = 0;
    for _ in 0..SAMPLES {
        while stack.used() == 0 {
            std::hint::black_box(super::deep(100));
        }
        most = stack.used().max(most);
        stack.paint();
    }
    println!(
        "a sample takes {} bytes beside the kernel's frame of {frame}",
        most - frame.min(most)
    );
}

/// Samples that come while a handler runs on the same stack.
fn on_top(frame: usize) {
    let stack = SignalStack::new(2 * frame + OWN + ROOM);
    for _ in 0..SAMPLES {
        // SAFETY: a signal with a handler, to this thread.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
        stack.paint();
    }
}

pub(super) fn program() {
    catch(libc::SIGUSR1, long);
    let frame = frame();
    gracepoint::Builder::new().name("small").start().unwrap();
    super::say("ready");
    super::wait();
    for _ in 0..3 {
        // A new thread: its first sample is also its first read section.
        std::thread::spawn(move || alone(frame)).join().unwrap();
        std::thread::spawn(move || on_top(frame)).join().unwrap();
    }
    assert_eq!(BELOW.load(Relaxed), 3 * SAMPLES);
    super::say("done");
    super::wait();
}
