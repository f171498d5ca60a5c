//! Suite `reader`: what a read section costs, beside two bare increments and beside other ways to
//! read what others replace.
//!
//! A *pair* enters and leaves with nothing in between. With *load*, a pointer to a published number is
//! loaded and followed, which is what sections are for; hazard pointers and arc-swap have no section
//! without one. liburcu's loops are C, inlined, as its fastest users build it.
//!
//! One thread, nobody else inside: what readers of locks and reference counts do to each other
//! (they share a line, sections do not) is not seen here.

use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicPtr, Ordering};

use gracepoint_bench_peers::flavours;
use gracepoint_rcu::{Domain, RcuCell};

use crate::measure::{Row, measure, pin};
use crate::table::{Goal, Outcome, machine};

const ROUNDS: usize = 2_000;
/// Pairs of a chunk, for rows of a few nanoseconds, and for slower ones.
const QUICK: u64 = 4_096;
const SLOW: u64 = 512;

const EMPTY: &str = "empty loop";
const FLOOR: &str = "floor: two bare increments";
const PAIR: &str = "gracepoint pair";
const OWNED: &str = "gracepoint owned pair";
const MEMB: &str = "liburcu memb pair";
const EPOCH: &str = "crossbeam-epoch pin";
/// At most so many times the row.
const OVER_FLOOR: f64 = 2.2;
const OVER_MEMB: f64 = 0.6;
const OVER_EPOCH: f64 = 0.12;
/// At most so many nanoseconds.
const OWNED_NS: f64 = 25.0;

static DOMAIN: Domain = Domain::new("bench reader");

pub(crate) fn run(rounds: Option<usize>) -> Result<Outcome, Box<dyn Error>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    let cpu = pin()?;
    let mut notes = machine(cpu, rounds);
    notes.push(format!("read sections by {:?}", gracepoint_rcu::strategy()));
    let mut rows = ours();
    rows.extend(liburcu());
    rows.extend(collectors());
    rows.extend(counted_and_locked());
    let costs = measure(&mut rows, rounds);
    let mut outcome = Outcome { suite: "reader", notes, costs, floor: FLOOR, ..Outcome::default() };
    outcome.goals = vec![goal(&outcome, FLOOR, OVER_FLOOR)];
    if flavours().is_empty() {
        outcome.absent.push("liburcu memb, qsbr, bp");
    } else {
        outcome.goals.push(goal(&outcome, MEMB, OVER_MEMB));
    }
    outcome.goals.push(goal(&outcome, EPOCH, OVER_EPOCH));
    let owned = outcome.cost(OWNED).min_ns;
    let what = format!("{OWNED}: {owned:.1} ns, at most {OWNED_NS}");
    outcome.goals.push(Goal { what, met: owned <= OWNED_NS });
    Ok(outcome)
}

fn goal(outcome: &Outcome, than: &str, at_most: f64) -> Goal {
    let ratio = outcome.cost(PAIR).min_ns / outcome.cost(than).min_ns;
    let what = format!("{PAIR}: {ratio:.2} x {than}, at most {at_most}");
    Goal { what, met: ratio <= at_most }
}

/// A pointer to a number that lives for ever.
fn published() -> AtomicPtr<u64> {
    AtomicPtr::new(Box::leak(Box::new(1_u64)))
}

fn ours() -> Vec<Row<'static>> {
    let mut counters = [0_u64; 2];
    let bare = published();
    let cell = RcuCell::new(&DOMAIN, 1_u64);
    vec![
        Row::new(EMPTY, QUICK, |n| {
            for _ in 0..n {
                black_box(());
            }
        }),
        Row::new(FLOOR, QUICK, move |n| {
            let [a, b] = &mut counters;
            for _ in 0..n {
                *a += 1;
                black_box(&mut *a);
                *b += 1;
                black_box(&mut *b);
            }
        }),
        Row::new(PAIR, QUICK, |n| {
            for _ in 0..n {
                drop(DOMAIN.read());
            }
        }),
        Row::new("gracepoint pair, pointer loaded", QUICK, move |n| {
            for _ in 0..n {
                let guard = DOMAIN.read();
                black_box(bare.load(Ordering::Acquire));
                drop(guard);
            }
        }),
        Row::new("gracepoint pair, RcuCell::load followed", QUICK, move |n| {
            for _ in 0..n {
                let guard = DOMAIN.read();
                black_box(*cell.load(&guard));
                drop(guard);
            }
        }),
        Row::new(OWNED, SLOW, |n| {
            for _ in 0..n {
                drop(black_box(DOMAIN.read_owned("bench")));
            }
        }),
    ]
}

fn liburcu() -> Vec<Row<'static>> {
    let mut rows = Vec::new();
    for flavour in flavours() {
        // Until the end of the process: the row measures what a registered thread does.
        let here: &_ = Box::leak(Box::new(flavour.register()));
        let (pair, load) = match flavour.name {
            "memb" => (MEMB, "liburcu memb pair, pointer followed"),
            "qsbr" => {
                ("liburcu qsbr pair, which is nothing", "liburcu qsbr pair, pointer followed")
            }
            _ => ("liburcu bp pair", "liburcu bp pair, pointer followed"),
        };
        rows.push(Row::new(pair, QUICK, |n| here.pairs(n)));
        if flavour.name == "qsbr" {
            let name = "liburcu qsbr pair and quiescent state";
            rows.push(Row::new(name, QUICK, |n| here.quiet_pairs(n)));
        }
        rows.push(Row::new(load, QUICK, |n| {
            black_box(here.loads(n));
        }));
    }
    rows
}

fn collectors() -> Vec<Row<'static>> {
    let epoch = crossbeam_epoch::Atomic::new(1_u64);
    let collector: &_ = Box::leak(Box::new(seize::Collector::new()));
    let to_protect = published();
    let hazard = haphazard::AtomicPtr::from(Box::new(1_u64));
    let mut pointer = haphazard::HazardPointer::new();
    vec![
        Row::new(EPOCH, SLOW, |n| {
            for _ in 0..n {
                drop(black_box(crossbeam_epoch::pin()));
            }
        }),
        Row::new("crossbeam-epoch pin, pointer loaded", SLOW, move |n| {
            for _ in 0..n {
                let guard = crossbeam_epoch::pin();
                black_box(epoch.load(Ordering::Acquire, &guard));
            }
        }),
        Row::new("seize enter", SLOW, |n| {
            for _ in 0..n {
                drop(black_box(collector.enter()));
            }
        }),
        Row::new("seize enter, pointer protected", SLOW, move |n| {
            use seize::Guard;
            for _ in 0..n {
                let guard = collector.enter();
                black_box(guard.protect(&to_protect, Ordering::Acquire));
            }
        }),
        Row::new("seize enter_owned", SLOW, |n| {
            for _ in 0..n {
                drop(black_box(collector.enter_owned()));
            }
        }),
        Row::new("haphazard, pointer protected and followed", SLOW, move |n| {
            for _ in 0..n {
                black_box(hazard.safe_load(&mut pointer).copied());
                pointer.reset_protection();
            }
        }),
    ]
}

fn counted_and_locked() -> Vec<Row<'static>> {
    let swap = arc_swap::ArcSwap::from_pointee(1_u64);
    let std_lock = std::sync::RwLock::new(1_u64);
    let parked = parking_lot::RwLock::new(1_u64);
    vec![
        Row::new("arc-swap load, followed", SLOW, move |n| {
            for _ in 0..n {
                black_box(**swap.load());
            }
        }),
        Row::new("std RwLock read, followed", SLOW, move |n| {
            for _ in 0..n {
                black_box(std_lock.read().map_or(0, |value| *value));
            }
        }),
        Row::new("parking_lot RwLock read, followed", SLOW, move |n| {
            for _ in 0..n {
                black_box(*parked.read());
            }
        }),
    ]
}
