//! What an updater waits for that does not block: callbacks, cookies, and `barrier()` for both. Nobody
//! reads and nothing else runs, so what is left is how soon the engine looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gracepoint_bench_peers::flavours;
use gracepoint_rcu::{Domain, Progress};

use super::{DOMAIN, OURS, start_workers};
use crate::measure::pin;
use crate::sections::{LATENCY, Samples, Section};
use crate::table::Goal;

/// Samples of a round.
const CALLS: usize = 20;
/// Of something that takes 10 ms.
const MOST_OF_SLOW: usize = 50;

const CALLER_DRIVES: &str = "gracepoint, the caller drives";
const ITS_THREAD: &str = "gracepoint, the domain's thread";

static SERVED: Domain = Domain::with_thread("bench calls");

/// In µs.
fn section(title: &'static str, at_most: f64, row: &str, rows: Vec<(String, Vec<f64>)>) -> Section {
    let mut section =
        Section { title, unit: "µs", columns: LATENCY, rows, notes: vec![], goals: vec![] };
    if let Some(p50) = section.value(row, "p50") {
        let what = format!("{row}: p50 {p50:.2} µs, under {at_most}");
        section.goals.push(Goal { what, met: p50 < at_most });
    }
    section
}

fn row(name: impl Into<String>, samples: usize, once: impl FnMut() -> f64) -> (String, Vec<f64>) {
    let samples = std::iter::repeat_with(once).take(samples).collect();
    (name.into(), Samples::of(samples).latency())
}

fn micros(begin: Instant) -> f64 {
    begin.elapsed().as_nanos() as f64 / 1e3
}

pub(crate) fn cookies(rounds: usize) -> Section {
    let _ = pin();
    let ours = row(OURS, rounds * CALLS, || {
        let begin = Instant::now();
        let cookie = DOMAIN.start_poll();
        while !DOMAIN.poll_state(cookie) {
            DOMAIN.poll();
        }
        micros(begin)
    });
    let title = "a cookie from start_poll until it is done, by polling";
    let mut section = section(title, 50.0, OURS, vec![ours]);
    section.notes.push("liburcu has cookies from 0.14 on; they are not measured".to_owned());
    section
}

pub(crate) fn calls(rounds: usize) -> Section {
    start_workers(&[&SERVED]);
    let _ = pin();
    let mut rows = vec![row(CALLER_DRIVES, rounds * CALLS, || {
        let took = Arc::new(AtomicU64::new(0));
        let (begin, noted) = (Instant::now(), Arc::clone(&took));
        DOMAIN.call(move || noted.store(begin.elapsed().as_nanos() as u64, Ordering::Relaxed));
        while DOMAIN.drive() != Progress::Idle {}
        took.load(Ordering::Relaxed) as f64 / 1e3
    })];
    rows.push(row(ITS_THREAD, rounds * CALLS, || {
        let took = Arc::new(AtomicU64::new(0));
        let (begin, noted) = (Instant::now(), Arc::clone(&took));
        // At least 1, because 0 stands for "not yet".
        SERVED.call(move || noted.store(begin.elapsed().as_nanos() as u64 | 1, Ordering::Release));
        while took.load(Ordering::Acquire) == 0 {
            thread::sleep(Duration::from_micros(50));
        }
        took.load(Ordering::Relaxed) as f64 / 1e3
    }));
    for flavour in flavours() {
        let here = flavour.register();
        let name = format!("liburcu {}", flavour.name);
        rows.push(row(name, rounds.min(MOST_OF_SLOW), || here.call_latency() as f64 / 1e3));
    }
    let mut section = section("from call to the callback", 100.0, ITS_THREAD, rows);
    section.notes.push("its thread: asleep at the call, on any processor, as liburcu's".to_owned());
    section
}

pub(crate) fn barriers(rounds: usize) -> Section {
    let _ = pin();
    let mut rows = vec![row(OURS, rounds * CALLS, || {
        let begin = Instant::now();
        DOMAIN.barrier().expect("no section is open here");
        micros(begin)
    })];
    for flavour in flavours() {
        let here = flavour.register();
        let name = format!("liburcu {}", flavour.name);
        rows.push(row(name, rounds.min(MOST_OF_SLOW), || {
            let begin = Instant::now();
            here.barrier();
            micros(begin)
        }));
    }
    section("barrier(), nothing queued", 100.0, OURS, rows)
}
