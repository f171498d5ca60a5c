//! How many `membarrier` calls a grace period takes while its reader is preempted inside a section.
//!
//! A reader that is nearly always inside shares its processor with a thread that never sleeps, so it is
//! switched out for milliseconds, and nearly always inside. An updater that asks again and again by
//! `membarrier` whether it is still there makes thousands of calls in that time.

use std::error::Error;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gracepoint_bench_peers::Counter;
use gracepoint_rcu::Domain;

use super::{Engine, OURS};
use crate::measure::{pin, pin_beside};
use crate::sections::{Samples, Section};
use crate::table::Goal;

const AT_MOST: f64 = 4.0;
/// A grace period of this length had to wait for a reader that did not run.
const PREEMPTED: Duration = Duration::from_micros(500);
/// How long a section spins.
const INSIDE: Duration = Duration::from_micros(20);

/// New to this section, so that whatever thread it may start is counted too.
static COUNTED: Domain = Domain::new("bench membarriers");

pub(crate) fn run(rounds: usize) -> Section {
    let mut section = Section {
        title: "membarriers per grace period, reader preempted inside",
        unit: "calls",
        columns: &["p50", "p99", "max", "grace periods", "of these long"],
        rows: Vec::new(),
        notes: vec![
            "counted by a seccomp filter; long: 500 µs or more, so the reader was not running"
                .to_owned(),
        ],
        goals: Vec::new(),
    };
    match count(2 * rounds) {
        Ok(rows) => section.rows = rows,
        Err(why) => section.notes.push(format!("not measured: {why}")),
    }
    if let Some(most) = section.value(OURS, "max") {
        let what = format!("at most {most} membarriers, at most {AT_MOST}");
        section.goals.push(Goal { what, met: most <= AT_MOST });
    }
    section
}

/// Ours and liburcu memb. (bp makes its calls with all signals blocked, and qsbr makes none.)
fn counted() -> Vec<Engine> {
    Engine::some(&COUNTED, |peer| peer.name == "memb")
}

type Rows = Vec<(String, Vec<f64>)>;

fn count(grace_periods: usize) -> Result<Rows, Box<dyn Error>> {
    // Before any other thread is started: they inherit it.
    let counter = Counter::on_this_thread()?;
    let stop = &AtomicBool::new(false);
    let (inside, laps) = (&AtomicUsize::new(0), &AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = pin_beside();
            let engines = counted();
            while !stop.load(Ordering::Relaxed) {
                let begin = Instant::now();
                let engine = &engines[inside.load(Ordering::Relaxed)];
                engine.section(|| while begin.elapsed() < INSIDE {});
                laps.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(move || {
            let _ = pin_beside();
            while !stop.load(Ordering::Relaxed) {
                spin_loop();
            }
        });
        let _ = pin();
        let engines = counted();
        let mut rows = Rows::new();
        for (number, engine) in engines.iter().enumerate() {
            inside.store(number, Ordering::Relaxed);
            rows.push((engine.name(), row(engine, counter, grace_periods, laps)));
        }
        stop.store(true, Ordering::Relaxed);
        Ok(rows)
    })
}

fn row(engine: &Engine, counter: Counter, grace_periods: usize, laps: &AtomicU64) -> Vec<f64> {
    let mut long = 0;
    let mut calls = Vec::new();
    for _ in 0..grace_periods {
        wait_until_preempted(laps);
        let (begin, before) = (Instant::now(), counter.calls());
        engine.synchronize();
        calls.push((counter.calls() - before) as f64);
        long += usize::from(begin.elapsed() >= PREEMPTED);
    }
    let calls = Samples::of(calls);
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| calls.quantile(q));
    vec![p50, p99, max, grace_periods as f64, long as f64]
}

/// Returns when the reader has made two laps and then none for several times as long as one takes. That it
/// still does not run when the grace period begins is likely, and how often it did is counted.
fn wait_until_preempted(laps: &AtomicU64) {
    let goal = laps.load(Ordering::Relaxed) + 2;
    while laps.load(Ordering::Relaxed) < goal {
        thread::yield_now();
    }
    let (mut seen, mut since) = (0, Instant::now());
    while since.elapsed() < 5 * INSIDE {
        let now = laps.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
}
