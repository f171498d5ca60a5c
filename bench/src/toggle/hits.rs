//! What a hit costs whose tracepoint has probes that do nothing.

use std::error::Error;
use std::fmt::Write;
use std::hint::black_box;

use gracepoint::{Probe, Tracer};
use serde_json::json;

use super::Findings;
use crate::measure::{Cost, Row, measure, pin};

const ROUNDS: usize = 3_000;
const CHUNK: u64 = 4_096;
const MOST_FIRST_NS: f64 = 4.0;
const MOST_EACH_NS: f64 = 2.0;

const EMPTY: &str = "empty loop";
const ONE: &str = "a hit with one probe";
const EIGHT: &str = "a hit with eight probes";

/// Two numbers and text, as in the suites `site` and `record`.
#[derive(gracepoint::Event)]
#[event(name = "bench:one")]
struct One<'a> {
    number: u64,
    size: u64,
    name: &'a str,
}

#[derive(gracepoint::Event)]
#[event(name = "bench:eight")]
struct Eight<'a> {
    number: u64,
    size: u64,
    name: &'a str,
}

/// Measures on a thread of its own, which is pinned.
pub(super) fn of_probes(found: &mut Findings) -> Result<(), Box<dyn Error>> {
    let tracer = Tracer::new("hits");
    let eight =
        |_| tracer.tracepoint::<Eight<'_>>().attach(|event: &Eight<'_>| no_op(event.number));
    let one = tracer.tracepoint::<One<'_>>().attach(|event: &One<'_>| no_op(event.number));
    let _one: Probe = one?;
    let _eight: Vec<Probe> = (0..8).map(eight).collect::<Result<_, _>>()?;
    let costs = std::thread::scope(|scope| {
        let thread = scope.spawn(|| pin().map(|_cpu| measure(&mut rows(), ROUNDS)));
        thread.join().map_err(|_| "the thread that measures has panicked")
    })?;
    found.hits = costs?;
    Ok(())
}

fn no_op(number: u64) {
    black_box(number);
}

fn rows() -> Vec<Row<'static>> {
    vec![
        Row::new(EMPTY, CHUNK, |n| {
            for i in 0..n {
                black_box(i);
            }
        }),
        Row::new(ONE, CHUNK, |n| {
            for i in 0..n {
                let i = black_box(i);
                gracepoint::trace!(One { number: i, size: i ^ 1, name: crate::NAME });
            }
        }),
        Row::new(EIGHT, CHUNK, |n| {
            for i in 0..n {
                let i = black_box(i);
                gracepoint::trace!(Eight { number: i, size: i ^ 1, name: crate::NAME });
            }
        }),
    ]
}

pub(super) fn judge(found: &mut Findings) {
    let min = |name: &str| {
        found.hits.iter().find(|cost| cost.name == name).map_or(f64::NAN, |cost| cost.min_ns)
    };
    let (one, eight) = (min(ONE) - min(EMPTY), (min(EIGHT) - min(ONE)) / 7.0);
    found.goal(
        format!("{ONE}: {one:.1} ns over the empty loop, at most {MOST_FIRST_NS}"),
        one <= MOST_FIRST_NS,
    );
    found.goal(
        format!("each of seven probes more: {eight:.1} ns, at most {MOST_EACH_NS}"),
        eight <= MOST_EACH_NS,
    );
}

pub(super) fn table(found: &Findings) -> String {
    let mut text = format!("\n{:24}  {:>8}  {:>9}\n", "hits", "min ns", "median ns");
    for Cost { name, min_ns, median_ns } in &found.hits {
        let _ = writeln!(text, "{name:24}  {min_ns:8.2}  {median_ns:9.2}");
    }
    text
}

pub(super) fn json(found: &Findings) -> String {
    let mut text = String::new();
    for Cost { name, min_ns, median_ns } in &found.hits {
        let row = json!({
            "suite": "toggle", "row": name, "min_ns": min_ns, "median_ns": median_ns,
        });
        let _ = writeln!(text, "{row}");
    }
    text
}
