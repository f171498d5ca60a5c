//! Prints what a hit costs with user probes, beside an empty loop:
//! `cargo run -p gracepoint --release --example probe_cost`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

use gracepoint::{Probe, Tracer};
use std::hint::black_box;
use std::time::Instant;

#[derive(gracepoint::Event)]
#[event(name = "cost:hit")]
struct Hit<'a> {
    n: u64,
    size: u64,
    key: &'a str,
}

const CHUNK: u64 = 4096;
const ROUNDS: usize = 3000;

/// Nanoseconds of one iteration: the least and the median of many short runs.
fn time(name: &str, mut body: impl FnMut(u64)) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            (0..CHUNK).for_each(|i| body(black_box(i)));
            begun.elapsed().as_nanos() as f64 / CHUNK as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{name:<44} {:7.2} {:7.2}", times[0], times[ROUNDS / 2]);
    times[0]
}

fn hit(i: u64) {
    gracepoint::trace!(Hit { n: i, size: i ^ 1, key: "sixteen bytes :)" });
}

fn noop() -> Result<Probe, gracepoint::Error> {
    Hit::tracepoint().attach(|hit: &Hit<'_>| {
        black_box(hit);
    })
}

fn main() -> Result<(), gracepoint::Error> {
    println!("{:<44} {:>7} {:>7}   ({})", "ns", "least", "median", gracepoint::patching());
    let empty = time("empty loop", |i| {
        black_box(i);
    });
    time("trace! that is off", hit);
    let first = noop()?;
    let one = time("trace! with one no-op probe", hit);
    let others = (0..7).map(|_| noop()).collect::<Result<Vec<_>, _>>()?;
    let eight = time("trace! with eight no-op probes", hit);
    drop((first, others));
    let views = Tracer::global().tracepoints("cost:*");
    let view = views.attach(|view| {
        black_box(view.name());
    })?;
    time("one probe by pattern that looks at the name", hit);
    drop(view);
    let views = Tracer::global().tracepoints("cost:*");
    let view = views.attach(|view| {
        black_box(view.get("n"));
    })?;
    time("one probe by pattern that looks at a field", hit);
    drop(view);
    println!(
        "one probe: {:.2} ns over the empty loop; each of seven more: {:.2} ns",
        one - empty,
        (eight - one) / 7.0
    );
    Ok(())
}
