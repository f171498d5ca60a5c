//! Prints what grace periods and callbacks cost, in each way to run them. Not a verdict: run it with
//! `cargo run -p gracepoint-rcu --release --example updates`, on Linux.
#![allow(clippy::print_stdout, reason = "it prints")]

use gracepoint_rcu::{Domain, Progress};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

static DRIVEN: Domain = Domain::new("driven");
static SERVED: Domain = Domain::with_thread("served");

fn report(name: &str, mut samples: Vec<u64>) {
    samples.sort_unstable();
    let at = |part: usize| samples[(samples.len() - 1) * part / 1000] as f64 / 1e3;
    println!("{name:<44} p50 {:8.2} µs   p99 {:8.2} µs   min {:8.2} µs", at(500), at(990), at(0));
}

fn sample(rounds: usize, pause: Duration, mut f: impl FnMut()) -> Vec<u64> {
    let samples = (0..rounds).map(|_| {
        thread::sleep(pause);
        let begun = Instant::now();
        f();
        begun.elapsed().as_nanos() as u64
    });
    samples.collect()
}

/// From `call` to the callback on the domain's thread, which sleeps before.
fn call_to_callback() {
    static RAN: AtomicU64 = AtomicU64::new(0);
    let base = Instant::now();
    let samples = (0..1000).map(|_| {
        thread::sleep(Duration::from_micros(500));
        RAN.store(0, Ordering::Relaxed);
        let begun = base.elapsed().as_nanos() as u64;
        SERVED.call(move || RAN.store(base.elapsed().as_nanos() as u64, Ordering::Release));
        loop {
            let ran = RAN.load(Ordering::Acquire);
            if ran != 0 {
                return ran - begun;
            }
            thread::sleep(Duration::from_micros(50));
        }
    });
    report("call to callback, thread, idle machine", samples.collect());
}

fn cookies() {
    let wait = |domain: &'static Domain| {
        move || {
            let cookie = domain.start_poll();
            while !domain.poll_state(cookie) {
                domain.poll();
            }
        }
    };
    report("cookie by polling, driven", sample(1000, Duration::from_micros(300), wait(&DRIVEN)));
    report("cookie by polling, thread", sample(1000, Duration::from_micros(300), wait(&SERVED)));
    let only_look = || {
        let cookie = SERVED.start_poll();
        while !SERVED.poll_state(cookie) {
            std::hint::spin_loop();
        }
    };
    report("cookie by looking only, thread", sample(1000, Duration::from_micros(300), only_look));
}

fn waits(with: &str) {
    let tight = Duration::ZERO;
    for (name, domain) in [("driven", &DRIVEN), ("thread", &SERVED)] {
        let synchronize = || domain.synchronize().expect("outside");
        report(
            &format!("synchronize, {name}, {with}"),
            (0..5000)
                .map(|_| {
                    let begun = Instant::now();
                    synchronize();
                    begun.elapsed().as_nanos() as u64
                })
                .collect(),
        );
        let barrier = || domain.barrier().expect("outside");
        report(&format!("barrier, {name}, {with}"), sample(500, tight, barrier));
    }
}

fn with_busy_reader(f: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(DRIVEN.read());
                drop(SERVED.read());
            }
        });
        thread::sleep(Duration::from_millis(20));
        f();
        stop.store(true, Ordering::Relaxed);
    });
}

fn with_idle_threads(f: impl FnOnce()) {
    let done = std::sync::Barrier::new(65);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                drop(DRIVEN.read());
                drop(SERVED.read());
                done.wait();
            });
        }
        thread::sleep(Duration::from_millis(50));
        f();
        done.wait();
    });
}

/// One producer, with malloc and free; once the value is the callback's own, once it is boxed.
fn throughput() {
    const CALLS: u64 = 4_000_000;
    for boxed in [false, true] {
        let retire = |domain: &'static Domain, number: u64| match boxed {
            true => domain.retire(Box::new(number)),
            false => domain.retire(Drops(number)),
        };
        let rate = |begun: Instant| CALLS as f64 / begun.elapsed().as_secs_f64() / 1e6;
        let begun = Instant::now();
        for number in 0..CALLS {
            retire(&DRIVEN, number);
            if number % 1024 == 0 {
                DRIVEN.drive();
            }
        }
        DRIVEN.barrier().expect("outside");
        println!("throughput, driven every 1024, boxed: {boxed:<8} {:8.2} M/s", rate(begun));
        let (begun, mut most) = (Instant::now(), 0);
        for number in 0..CALLS {
            retire(&SERVED, number);
            if number % 1024 == 0 {
                most = most.max(SERVED.pending_callbacks());
            }
        }
        SERVED.barrier().expect("outside");
        let rate = rate(begun);
        println!("throughput, thread, boxed: {boxed:<19} {rate:8.2} M/s   at most {most} queued");
    }
    while DRIVEN.drive() != Progress::Idle {}
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

struct Drops(u64);

impl Drop for Drops {
    fn drop(&mut self) {
        let before = DROPPED.load(Ordering::Relaxed);
        DROPPED.store(before.wrapping_add(self.0), Ordering::Relaxed);
    }
}

fn main() {
    println!("{:?}", gracepoint_rcu::strategy());
    call_to_callback();
    cookies();
    waits("alone");
    with_busy_reader(|| waits("1 busy reader"));
    with_idle_threads(|| waits("64 idle threads"));
    throughput();
    println!("{:?}", SERVED.stats());
}
