//! Suite `site`: the cost of a tracepoint that is off, against an empty loop.
//!
//! A tight loop is kind to every row: its one site is in the cache and predicted, so a load and a
//! branch look as cheap as a NOP. The row with eight sites is here to divide the noise by eight.

use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::measure::{Row, measure, pin};
use crate::table::{Goal, Outcome, machine};
use crate::{NAME, Sample};

const ROUNDS: usize = 3_000;
const CHUNK: u64 = 4_096;
/// About one cycle of a common CPU at half its clock; what is closer to the loop is noise.
const NOISE_NS: f64 = 0.25;

const EMPTY: &str = "empty loop";
const SITE: &str = "trace! that is off";
const EIGHT: &str = "trace! that is off, each of 8";
/// The reference, which nobody switches on.
static FLAG: AtomicBool = AtomicBool::new(false);

pub(crate) fn run(rounds: Option<usize>) -> Result<Outcome, Box<dyn Error>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    gracepoint::init()?;
    let cpu = pin()?;
    let costs = measure(&mut rows(), rounds);
    let mut outcome = Outcome {
        suite: "site",
        notes: machine(cpu, rounds),
        costs,
        floor: EMPTY,
        ..Outcome::default()
    };
    let net = outcome.cost(SITE).min_ns - outcome.cost(EMPTY).min_ns;
    let each = outcome.cost(EIGHT).min_ns - outcome.cost(EMPTY).min_ns / 8.0;
    let goal = |name: &str, net: f64| Goal {
        what: format!("{name}: {net:+.2} ns over the empty loop, at most {NOISE_NS:+}"),
        met: net <= NOISE_NS,
    };
    outcome.goals = vec![goal(SITE, net), goal(EIGHT, each)];
    Ok(outcome)
}

fn rows() -> Vec<Row<'static>> {
    vec![
        Row::new(EMPTY, CHUNK, |n| {
            for i in 0..n {
                black_box(i);
            }
        }),
        Row::new(SITE, CHUNK, |n| {
            for i in 0..n {
                let i = black_box(i);
                gracepoint::trace!(Sample { number: i, size: i ^ 1, name: NAME });
            }
        }),
        Row::new("relaxed AtomicBool and a branch", CHUNK, |n| {
            for i in 0..n {
                let i = black_box(i);
                if FLAG.load(Ordering::Relaxed) {
                    cold(i);
                }
            }
        }),
        Row::new("tracing::info! without subscriber", CHUNK, |n| {
            for i in 0..n {
                let i = black_box(i);
                tracing::info!(number = i, size = i ^ 1, name = NAME);
            }
        }),
        Row::new(EIGHT, CHUNK, eight_sites).of(8),
    ]
}

#[cold]
#[inline(never)]
fn cold(i: u64) {
    black_box(i);
}

fn eight_sites(n: u64) {
    for i in 0..n {
        let i = black_box(i);
        gracepoint::trace!(Sample { number: i, size: 1, name: NAME });
        gracepoint::trace!(Sample { number: i, size: 2, name: NAME });
        gracepoint::trace!(Sample { number: i, size: 3, name: NAME });
        gracepoint::trace!(Sample { number: i, size: 4, name: NAME });
        gracepoint::trace!(Sample { number: i, size: 5, name: NAME });
        gracepoint::trace!(Sample { number: i, size: 6, name: NAME });
        gracepoint::trace!(Sample { number: i, size: 7, name: NAME });
        gracepoint::trace!(Sample { number: i, size: 8, name: NAME });
    }
}
