//! Prints what a read section costs, beside the floor. Not a verdict: run it with
//! `cargo run -p gracepoint-rcu --release --example pair`, on Linux.
#![allow(clippy::print_stdout, reason = "it prints")]

use gracepoint_rcu::{Domain, Progress};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

static DOMAIN: Domain = Domain::new("pair");
static NOTED: Domain = Domain::new("noted");
gracepoint_rcu::domain! {
    static TYPED: Typed = "typed";
}

/// Nanoseconds that this thread has run: other programs on the machine do not count.
fn cpu_time() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time goes to a variable of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

fn time(name: &str, mut f: impl FnMut()) {
    let rounds = 50_000_000_u32;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let begun = cpu_time();
        for _ in 0..rounds {
            f();
        }
        best = best.min((cpu_time() - begun) / f64::from(rounds));
    }
    println!("{name:<28} {best:6.2} ns");
}

fn main() {
    println!("{:?}", gracepoint_rcu::strategy());
    time("empty loop", || {
        black_box(());
    });
    let mut counters = [0_u64; 2];
    time("two bare increments", || {
        let [a, b] = &mut counters;
        *a += 1;
        black_box(&mut *a);
        *b += 1;
        black_box(&mut *b);
    });
    time("read section", || drop(DOMAIN.read()));
    let cell = gracepoint_rcu::RcuCell::new(&DOMAIN, 1_u64);
    time("read section, RcuCell::load", || {
        let guard = DOMAIN.read();
        black_box(*cell.load(&guard));
    });
    time("owned section", || drop(DOMAIN.read_owned("pair")));
    time("section in a typed domain", || drop(TYPED.read()));
    NOTED.note_call_sites(true);
    time("section that is noted", || drop(NOTED.read()));
    time("thread_index", || {
        black_box(gracepoint_rcu::thread_index());
    });
    owned_by_two();
    latency("synchronize, alone");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(DOMAIN.read());
            }
        });
        latency("synchronize, busy reader");
        stop.store(true, Ordering::Relaxed);
    });
    let begun = Instant::now();
    for batch in 0..250 {
        for number in 0..4000_u64 {
            DOMAIN.retire(Box::new(number));
        }
        while DOMAIN.drive() != Progress::Idle {}
        black_box(batch);
    }
    println!("retire and drive             {:6.1} ns", begun.elapsed().as_nanos() as f64 / 1e6);
    let begun = Instant::now();
    for _ in 0..1000 {
        DOMAIN.barrier().expect("outside");
    }
    println!("barrier, idle                {:6} ns", begun.elapsed().as_nanos() / 1000);
}

/// Two threads at once whose guards have the same owner.
fn owned_by_two() {
    const ROUNDS: u32 = 5_000_000;
    let one = || {
        drop(DOMAIN.read());
        let begun = cpu_time();
        (0..ROUNDS).for_each(|_| drop(DOMAIN.read_owned("pair")));
        (cpu_time() - begun) / f64::from(ROUNDS)
    };
    let both = thread::scope(|scope| {
        let threads = [scope.spawn(one), scope.spawn(one)];
        threads.map(|thread| thread.join().expect("joined"))
    });
    println!("{:<28} {:6.2} ns", "owned section, two threads", both[0].max(both[1]));
}

fn latency(name: &str) {
    let mut latency = [0_u128; 5000];
    for sample in &mut latency {
        let begun = Instant::now();
        DOMAIN.synchronize().expect("outside");
        *sample = begun.elapsed().as_nanos();
    }
    latency.sort_unstable();
    println!("{name:<28} p50 {} ns, min {} ns", latency[2500], latency[0]);
}
