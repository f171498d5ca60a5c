//! Functions that suite `function` measures. The suite builds this program with sleds, with `mcount` and plain, and runs it:
//!
//! | mode | prints |
//! |---|---|
//! | `calls NAME ROUNDS` | a line `NAME min median`, ns for each call of a leaf function |
//! | `off ROUNDS` | rows that are the same in each build, and the attribute |
//! | `noop ROUNDS` | the leaf with a callback that does nothing |
//! | `attribute ROUNDS` | the function with the attribute, with a callback that does nothing |
//! | `tracing ROUNDS` | spans of `tracing` with a subscriber that does nothing |
//! | `floor ROUNDS` | two readings of the clock and the stores of two records |
//! | `serve ROUNDS` | the leaf's id and the agent's socket; on a line of input, the leaf; ends with the input |
//! | `toggle ROUNDS` | 5,000 functions on and off while 3 threads run them |
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what it prints is what the suite reads")]

mod many;
mod measure;

use gracepoint::FunctionOps;
use measure::{measure, row};
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What is called. Not inlined, so that it is a function.
#[inline(never)]
fn leaf(x: u64) -> u64 {
    black_box(x) + 1
}

#[inline(never)]
#[gracepoint::function]
fn attributed(x: u64) -> u64 {
    black_box(x) + 1
}

#[inline(never)]
fn instrumented(x: u64) -> u64 {
    let _span = tracing::info_span!("instrumented").entered();
    black_box(x) + 1
}

/// Wants everything and does nothing.
struct Nothing;

impl tracing::Subscriber for Nothing {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

const CALLS: u64 = 2048;

fn calls(name: &str, rounds: usize) {
    row(name, measure(rounds, CALLS, |n| (0..n).for_each(|i| _ = black_box(leaf(i)))));
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rounds = args.last().and_then(|n| n.parse().ok()).unwrap_or(300);
    match args.first().map_or("", String::as_str) {
        "calls" => calls(&args[1], rounds),
        "off" => {
            row(
                "attribute-off",
                measure(rounds, CALLS, |n| {
                    (0..n).for_each(|i| _ = black_box(attributed(i)));
                }),
            );
        }
        "noop" => {
            let ops = FunctionOps::new("gracepoint_bench_functions::leaf");
            let ops = ops.on_entry(|_| {}).on_exit(|_| {}).register().expect("switched on");
            calls("noop", rounds);
            drop(ops);
        }
        "attribute" => {
            let ops = FunctionOps::new("gracepoint_bench_functions::attributed");
            let ops = ops.on_entry(|_| {}).on_exit(|_| {}).register().expect("switched on");
            row(
                "attribute-noop",
                measure(rounds, CALLS, |n| {
                    (0..n).for_each(|i| _ = black_box(attributed(i)));
                }),
            );
            drop(ops);
        }
        "tracing" => {
            tracing::subscriber::set_global_default(Nothing).expect("the first");
            row(
                "tracing",
                measure(rounds, CALLS, |n| {
                    (0..n).for_each(|i| _ = black_box(instrumented(i)));
                }),
            );
        }
        "floor" => floor(rounds),
        "serve" => serve(rounds),
        "toggle" => many::toggle(rounds),
        mode => panic!("no mode {mode:?}"),
    }
}

/// What recording two hits cannot do without: the clock, twice, and 13 bytes, twice.
fn floor(rounds: usize) {
    let mut buffer = vec![0_u8; 32 << 10];
    let mut at = 0;
    row(
        "floor",
        measure(rounds, CALLS, |n| {
            for i in 0..n {
                for _ in 0..2 {
                    let now = gracepoint::__private::counter();
                    let record = &mut buffer[at..at + 13];
                    record[..5].copy_from_slice(&now.to_le_bytes()[..5]);
                    record[5..].copy_from_slice(&i.to_le_bytes());
                    at = (at + 13) & 0x3fff;
                }
            }
            black_box(&buffer);
        }),
    );
}

static ID: AtomicU32 = AtomicU32::new(0);

fn serve(rounds: usize) {
    let Ok(gracepoint::Status::Listening(path)) = gracepoint::init() else { panic!("no agent") };
    let ops = FunctionOps::new("gracepoint_bench_functions::leaf");
    let ops = ops.on_entry(|call| ID.store(call.id(), Relaxed)).register().expect("switched on");
    leaf(1);
    drop(ops);
    println!("{} {}", ID.load(Relaxed), path.display());
    for line in std::io::stdin().lines().map_while(Result::ok) {
        calls(&line, rounds);
    }
}
