//! Suite `record`: the cost of an event that is recorded, against the floor: reading the counter
//! and storing 33 bytes (two numbers, 16 bytes and a NUL) in a buffer that is walked.
//!
//! The recording is a real one, made by `gracepoint record` in another process through the socket
//! of this one. It must have every event: a lost one costs less than a recorded one, so a run that
//! lost any is an error and not a result.
//!
//! Beside it, where they are installed: `tracing`, and LTTng-UST ([`crate::lttng`]).

use std::cell::Cell;
use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use gracepoint::__private::counter;

use crate::lttng::{self, Lttng};
use crate::measure::{Row, measure, pin, pin_beside};
use crate::recorder::{Recorded, Recorder};
use crate::table::{Goal, Outcome, machine};
use crate::{NAME, Sample};

const ROUNDS: usize = 5_000;
/// Events of a chunk.
const CHUNK: u64 = 256;
const RATIO: f64 = 1.5;
const TWICE: f64 = 1.9;
/// How many times as many events two threads record as one.
const SCALE: f64 = 1.9;
/// Events of which each is measured alone.
const ALONE: usize = 1_000_000;
/// What LTTng-UST takes for the same event, all files included.
const BYTES: f64 = 39.0;
/// How much faster than LTTng-UST.
const LEAST: f64 = 4.0;

const FLOOR: &str = "floor: rdtsc and 33 bytes stored";
const RECORDED: &str = "trace! that is recorded";
const TWO: &str = "the same in two sessions";
const OVERWRITTEN: &str = "the same in overwrite mode";

pub(crate) fn run(rounds: Option<usize>) -> Result<Outcome, Box<dyn Error>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    gracepoint::init()?;
    let fired = Cell::new(0);
    let one = Recorder::start("bench:sample", &[])?;
    tracing_subscriber::fmt().with_writer(std::io::sink).init();
    let peer = Lttng::start();
    // Only now: the agent's thread and the recorder keep the other CPUs.
    let cpu = pin()?;
    let mut costs = measure(&mut rows(&fired), rounds);
    // A second session on the same event; the event is encoded once.
    let (before, two) = (fired.get(), Recorder::start("bench:sample", &[])?);
    costs.extend(measure(&mut [recorded_row(TWO, &fired)], rounds));
    let second = two.stop()?;
    whole(&second, fired.get() - before)?;
    let recorded = one.stop()?;
    whole(&recorded, fired.get())?;
    // So small that pages are written over all the time.
    let options = ["--flight-recorder", "--buffer", "1M"];
    let (before, newest) = (fired.get(), Recorder::start("bench:sample", &options)?);
    costs.extend(measure(&mut [recorded_row(OVERWRITTEN, &fired)], rounds));
    let newest = newest.stop()?;
    if newest.events + newest.lost != fired.get() - before {
        let (fired, events, lost) = (fired.get() - before, newest.events, newest.lost);
        return Err(format!("of {fired} events {events} are left and {lost} counted").into());
    }
    let alone = Recorder::start("bench:sample", &["--buffer", "256M"])?;
    let tail = tail();
    let scale = scale(rounds)?;
    let alone = alone.stop()?;
    whole(&alone, alone.events)?;
    let mut notes = machine(cpu, rounds);
    notes.push(tail);
    if scale.is_none() {
        notes.push("one CPU: two threads are not measured, and their goal is missing".into());
    }
    let bytes = recorded.bytes as f64 / recorded.events as f64;
    match peer.and_then(|peer| peer.measure(rounds, CHUNK)) {
        Ok(theirs) => costs.extend(theirs),
        Err(why) => notes.push(format!("LTTng-UST: {why}; its rows and goals are missing")),
    }
    notes.push(format!("{} events recorded by another process, none lost", recorded.events));
    notes.push(format!("{} written over and counted by the flight recorder", newest.lost));
    let mut outcome = Outcome { suite: "record", notes, costs, floor: FLOOR, ..Outcome::default() };
    let min = |name| outcome.cost(name).min_ns;
    let (ratio, twice) = (min(RECORDED) / min(FLOOR), min(TWO) / min(RECORDED));
    let mut goal = |what, met| outcome.goals.push(Goal { what, met });
    goal(format!("{RECORDED}: {ratio:.2} x the floor, at most {RATIO}"), ratio <= RATIO);
    goal(format!("two sessions: {twice:.2} x one, at most {TWICE}"), twice <= TWICE);
    if let Some(scale) = scale {
        goal(format!("2 threads: {scale:.2} x one, at least {SCALE}"), scale >= SCALE);
    }
    let what = format!("{bytes:.2} bytes per event on disk, at most {BYTES:.1}");
    goal(what, bytes <= BYTES);
    for peer in [lttng::DISCARD, lttng::OVERWRITE] {
        if let Some(theirs) = outcome.costs.iter().find(|cost| cost.name == peer) {
            let times = theirs.min_ns / outcome.cost(RECORDED).min_ns;
            let what = format!("{RECORDED}: {times:.1} x as fast as {peer}, at least {LEAST}");
            outcome.goals.push(Goal { what, met: times >= LEAST });
        }
    }
    Ok(outcome)
}

/// The slow ones among events that are measured one by one, the reading of the clock included. One in
/// some 430 turns a page; the slowest of all have an interrupt in them, or the hypervisor.
fn tail() -> String {
    let mut ticks: Vec<u64> = Vec::with_capacity(ALONE);
    let (begin, first) = (Instant::now(), counter());
    for i in 0..ALONE as u64 {
        let before = counter();
        let i = black_box(i);
        gracepoint::trace!(Sample { number: i, size: i ^ 1, name: black_box(NAME) });
        ticks.push(counter().wrapping_sub(before));
    }
    let per_tick = begin.elapsed().as_nanos() as f64 / counter().wrapping_sub(first).max(1) as f64;
    ticks.sort_unstable();
    let at = |part: f64| ticks[((ALONE - 1) as f64 * part) as usize] as f64 * per_tick;
    format!(
        "one by one, clock included: median {:.0} ns, a page turn (the slowest 1 in 860) {:.0} ns, \
         p99.99 {:.0} ns, worst {:.0} ns",
        at(0.5),
        at(1.0 - 1.0 / 860.0),
        at(0.9999),
        at(1.0)
    )
}

/// How many times as many events two threads on CPUs of their own record as one alone, by the
/// shortest chunks of both; `None` with one CPU.
fn scale(rounds: usize) -> Result<Option<f64>, Box<dyn Error>> {
    const EVENTS: u64 = 2_000;
    let chunk = || {
        let begin = Instant::now();
        for i in 0..EVENTS {
            let i = black_box(i);
            gracepoint::trace!(Sample { number: i, size: i ^ 1, name: black_box(NAME) });
        }
        begin.elapsed().as_nanos() as u64
    };
    let rounds = rounds.clamp(10, 1_000);
    let one = (0..rounds).map(|_| chunk()).min().unwrap_or(u64::MAX);
    let (turn, longest) = (AtomicUsize::new(0), [const { AtomicU64::new(0) }; 2]);
    let mut best = u64::MAX;
    let mut apart = false;
    // Each waits for the other before each chunk, so that both are at it at once.
    let meet = |goal: usize| {
        turn.fetch_add(1, Ordering::AcqRel);
        while turn.load(Ordering::Acquire) < goal {
            std::hint::spin_loop();
        }
    };
    let run = |me: usize, keep: &mut u64| {
        for round in 0..rounds {
            meet(4 * round + 2);
            longest[me].store(chunk(), Ordering::Relaxed);
            meet(4 * round + 4);
            let both = longest.each_ref().map(|time| time.load(Ordering::Relaxed));
            *keep = both[0].max(both[1]).min(*keep);
        }
    };
    let here = pin()?;
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let cpu = pin_beside().ok();
            let mut ignored = u64::MAX;
            run(1, &mut ignored);
            cpu
        });
        run(0, &mut best);
        apart = other.join().ok().flatten().is_some_and(|cpu| cpu != here);
    });
    Ok(apart.then(|| 2.0 * one as f64 / best as f64))
}

/// A lost event costs less than a recorded one, so a run that lost any is no result.
fn whole(recorded: &Recorded, fired: u64) -> Result<(), String> {
    if (recorded.events, recorded.lost) == (fired, 0) {
        return Ok(());
    }
    let (events, lost) = (recorded.events, recorded.lost);
    Err(format!("of {fired} events {events} were recorded, {lost} lost: no result"))
}

fn recorded_row<'a>(name: &'static str, fired: &'a Cell<u64>) -> Row<'a> {
    Row::new(name, CHUNK, move |n| {
        for i in 0..n {
            let i = black_box(i);
            gracepoint::trace!(Sample { number: i, size: i ^ 1, name: black_box(NAME) });
        }
        fired.set(fired.get() + n);
    })
}

fn rows<'a>(fired: &'a Cell<u64>) -> Vec<Row<'a>> {
    let mut buffer = vec![0_u8; 64 << 10];
    let mut at = 0;
    vec![
        Row::new("empty loop", 4_096, |n| {
            for i in 0..n {
                black_box(i);
            }
        }),
        Row::new(FLOOR, CHUNK, move |n| {
            for i in 0..n {
                let i = black_box(i);
                at = if at + 33 > buffer.len() { 0 } else { at };
                store(&mut buffer[at..at + 33], counter(), i, black_box(NAME));
                at += 33;
            }
            black_box(&mut buffer);
        }),
        recorded_row(RECORDED, fired),
        Row::new("tracing::info! and fmt, to a sink", 64, |n| {
            for i in 0..n {
                let i = black_box(i);
                tracing::info!(number = i, size = i ^ 1, name = black_box(NAME));
            }
        }),
    ]
}

/// The least that a record can be: the time (added to a number, so that nothing more is stored)
/// and the fields.
#[inline(always)]
fn store(record: &mut [u8], ticks: u64, i: u64, name: &str) {
    record[..8].copy_from_slice(&i.wrapping_add(ticks).to_le_bytes());
    record[8..16].copy_from_slice(&(i ^ 1).to_le_bytes());
    record[16..32].copy_from_slice(&name.as_bytes()[..16]);
    record[32] = 0;
}

#[test]
fn the_floor_stores_33_bytes() {
    let mut record = [0xff; 33];
    store(&mut record, 1, 2, NAME);
    assert_eq!((record[0], record[8], &record[16..32], record[32]), (3, 3, NAME.as_bytes(), 0));
}
