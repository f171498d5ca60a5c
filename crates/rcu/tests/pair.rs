//! Prints what a read section costs, beside the floor. Not a verdict: run it with
//! `cargo test -p gracepoint-rcu --release --test pair -- --nocapture --ignored`.
#![allow(clippy::print_stdout, reason = "it prints")]

use gracepoint_rcu::Domain;
use std::hint::black_box;
use std::time::Instant;

static DOMAIN: Domain = Domain::new("pair");

fn time(name: &str, mut f: impl FnMut()) {
    let rounds = 50_000_000_u32;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        for _ in 0..rounds {
            f();
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / f64::from(rounds));
    }
    println!("{name:<28} {best:6.2} ns");
}

#[test]
#[ignore = "a measurement"]
fn pair() {
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
    time("thread_index", || {
        black_box(gracepoint_rcu::thread_index());
    });
    let mut latency = [0_u64; 2000];
    for l in &mut latency {
        let begun = Instant::now();
        DOMAIN.synchronize().expect("not inside");
        *l = begun.elapsed().as_nanos() as u64;
    }
    latency.sort_unstable();
    println!("synchronize p50 {} ns, min {} ns", latency[1000], latency[0]);
}
