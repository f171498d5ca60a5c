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
use crate::recorder::Recorder;
use crate::table::{Goal, Outcome, machine};
use crate::{NAME, Sample};

const ROUNDS: usize = 5_000;
/// Events of a chunk.
const CHUNK: u64 = 256;
const RATIO: f64 = 1.8;
/// How much faster than LTTng-UST.
const LEAST: f64 = 4.0;

const FLOOR: &str = "floor: rdtsc and 33 bytes stored";
const RECORDED: &str = "trace! that is recorded";

pub(crate) fn run(rounds: Option<usize>) -> Result<Outcome, Box<dyn Error>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    gracepoint::init()?;
    let fired = Cell::new(0);
    let recorder = Recorder::start("bench:sample", || {
        let on = is_on();
        fired.set(fired.get() + u64::from(on));
        on
    })?;
    tracing_subscriber::fmt().with_writer(std::io::sink).init();
    let peer = Lttng::start();
    // Only now: the agent's thread and the recorder keep the other CPUs.
    let cpu = pin()?;
    let mut costs = measure(&mut rows(&fired), rounds);
    let recorded = recorder.stop()?;
    if (recorded.events, recorded.lost) != (fired.get(), 0) {
        let (fired, events, lost) = (fired.get(), recorded.events, recorded.lost);
        return Err(
            format!("of {fired} events {events} were recorded, {lost} lost: no result").into()
        );
    }
    let mut notes = machine(cpu, rounds);
    match peer.and_then(|peer| peer.measure(rounds, CHUNK)) {
        Ok(theirs) => costs.extend(theirs),
        Err(why) => notes.push(format!("LTTng-UST: {why}; its rows and goals are missing")),
    }
    notes.push(format!("{} events recorded by another process, none lost", recorded.events));
    let mut outcome = Outcome { suite: "record", notes, costs, floor: FLOOR, goals: vec![] };
    let ratio = outcome.cost(RECORDED).min_ns / outcome.cost(FLOOR).min_ns;
    let what = format!("{RECORDED}: {ratio:.2} x the floor, at most {RATIO}");
    outcome.goals.push(Goal { what, met: ratio <= RATIO });
    for peer in [lttng::DISCARD, lttng::OVERWRITE] {
        if let Some(theirs) = outcome.costs.iter().find(|cost| cost.name == peer) {
            let times = theirs.min_ns / outcome.cost(RECORDED).min_ns;
            let what = format!("{RECORDED}: {times:.1} x as fast as {peer}, at least {LEAST}");
            outcome.goals.push(Goal { what, met: times >= LEAST });
        }
    }
    Ok(outcome)
}

/// Fires the event once, and says whether it was on: its fields are evaluated only then.
pub(crate) fn is_on() -> bool {
    let on = Cell::new(false);
    let number = || {
        on.set(true);
        0
    };
    gracepoint::trace!(Sample { number: number(), size: 0, name: NAME });
    on.get()
}

fn rows(fired: &Cell<u64>) -> Vec<Row<'_>> {
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
        Row::new(RECORDED, CHUNK, move |n| {
            for i in 0..n {
                let i = black_box(i);
                gracepoint::trace!(Sample { number: i, size: i ^ 1, name: black_box(NAME) });
            }
            fired.set(fired.get() + n);
        }),
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
