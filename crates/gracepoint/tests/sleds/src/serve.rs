//! Works until standard input ends, with an agent: for recorders.

use crate::{traced, ways};
use std::hint::black_box;
use std::io::Read;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Hit where the calls have led.
#[derive(gracepoint::Event)]
#[event(name = "sleds:there")]
struct There {
    x: u64,
}

#[inline(never)]
fn second(x: u64) -> u64 {
    gracepoint::trace!(There { x });
    black_box(x)
}

#[inline(never)]
fn first(x: u64) -> u64 {
    second(x) + 1
}

pub(crate) fn run() {
    let status = gracepoint::init().expect("an agent");
    let gracepoint::Status::Listening(path) = status else { panic!("no agent: {status:?}") };
    println!("{}", path.display());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut x = 0;
            while !over.load(Relaxed) {
                x = first(traced::outer(x & 0xffff));
                ways::call_foreign();
                std::thread::yield_now();
            }
        });
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Relaxed);
    });
}
