//! A traceable program: four workers that look keys up, until the time in seconds (the first
//! argument, default 60) is over.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

use std::time::{Duration, Instant};

/// A key was looked up.
#[derive(gracepoint::Event)]
#[event(name = "kv:get")]
pub struct Get<'a> {
    /// The key.
    pub key: &'a str,
    /// Whether it was there.
    pub hit: bool,
    /// How long it took.
    pub took: Duration,
}

/// A batch of look-ups.
#[derive(gracepoint::Event)]
#[event(name = "kv:batch")]
pub struct Batch {
    /// How many.
    pub size: u32,
}

fn work(until: Instant) {
    let mut n = 0u64;
    while Instant::now() < until {
        let _span = gracepoint::span!(Batch { size: 100 });
        for _ in 0..100 {
            let start = Instant::now();
            n = n.wrapping_mul(6364136223846793005).wrapping_add(1);
            gracepoint::trace!(Get {
                key: &format!("key-{}", n >> 54),
                hit: n & 1 == 0,
                took: start.elapsed(),
            });
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(60);
    match gracepoint::init() {
        Ok(status) => println!("pid {}: {status:?}", std::process::id()),
        Err(error) => eprintln!("{error}"),
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let workers: Vec<_> = (0..4)
        .map(|i| {
            let name = format!("worker-{i}");
            std::thread::Builder::new().name(name).spawn(move || work(until)).expect("a thread")
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker that ends");
    }
}
