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

use gracepoint::__private::counter;

use crate::lttng::{self, Lttng};
use crate::measure::{Row, measure, pin};
use crate::recorder::{Recorded, Recorder};
use crate::table::{Goal, Outcome, machine};
use crate::{NAME, Sample};

const ROUNDS: usize = 5_000;
/// Events of a chunk.
const CHUNK: u64 = 256;
const RATIO: f64 = 1.8;
const TWICE: f64 = 1.9;
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
    let (before, newest) = (fired.get(), Recorder::start("bench:sample", &["--flight-recorder"])?);
    costs.extend(measure(&mut [recorded_row(OVERWRITTEN, &fired)], rounds));
    let newest = newest.stop()?;
    if newest.events + newest.lost != fired.get() - before {
        let (fired, events, lost) = (fired.get() - before, newest.events, newest.lost);
        return Err(format!("of {fired} events {events} are left and {lost} counted").into());
    }
    let mut notes = machine(cpu, rounds);
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
