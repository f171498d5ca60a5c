//! Suite `bridge`: what `tracing`'s call sites cost when they lead to Gracepoint, beside what else they may
//! lead to.
//!
//! A program has one global subscriber, and `tracing` caches what that thinks of each call site; so each
//! way is a process of its own ([`part`]), run in turn with the others several times over. Of a row the best
//! minimum counts, and the middle one of the medians.
//!
//! The recording is a real one, made by `gracepoint record` in another process, and must have every event.

pub(crate) mod export;
mod toggling;

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::process::Command;

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::prelude::*;

use crate::NAME;
use crate::measure::{Cost, Row, measure, pin};
use crate::recorder::Recorder;
use crate::table::{Goal, Outcome, machine};

const ROUNDS: usize = 1_000;
/// How often each way has its turn.
const TURNS: usize = 3;
const CHUNK: u64 = 64;

const EMPTY: &str = "empty loop";
const NONE: &str = "info!, no subscriber";
const OFF: &str = "info!, ours, off";
const ON: &str = "info!, ours, recorded";
const LOG_NONE: &str = "log::info!, no logger";
const LOG_OFF: &str = "log::info!, ours, off";
const LOG_BESIDE: &str = "log::info!, ours, off, another place on";
const NOOP: &str = "info!, no-op subscriber that visits fields";
const FMT: &str = "info!, fmt to a sink";
const BESIDE: &str = "info!, fmt to a sink, our layer beside, recorded";
const BESIDE_OFF: &str = "info!, fmt to a sink, our layer beside, off";
const FILTERED: &str = "info!, fmt to a sink, an empty layer with a filter beside";
const SPAN: &str = "span, ours, recorded";
const SPAN_REGISTRY: &str = "span, Registry alone";
const SPAN_OFF: &str = "span, ours, off";
const ON_TOGGLE: &str = "2,000 call sites on, ours";
const OFF_TOGGLE: &str = "2,000 call sites off, ours";
const RELOAD: &str = "2,000 call sites on or off, reload";
const PERFETTO: &str = "an event exported, export --to perfetto";
const PAGE: &str = "an event on a page, view";

/// Ways, and the rows that each has.
const PARTS: [(&str, &[&str]); 9] = [
    ("none", &[EMPTY, NONE, LOG_NONE]),
    ("off", &[OFF, SPAN_OFF, LOG_OFF, LOG_BESIDE]),
    ("on", &[ON, SPAN]),
    ("noop", &[NOOP]),
    ("fmt", &[FMT]),
    ("filtered", &[FILTERED]),
    ("registry", &[SPAN_REGISTRY]),
    ("beside", &[BESIDE_OFF, BESIDE]),
    ("toggle", &[ON_TOGGLE, OFF_TOGGLE]),
];

const EVENT_MOST: f64 = 60.0;
const SPAN_MOST: f64 = 150.0;
const OFF_MOST: f64 = 0.5;
const TOGGLE_MOST: f64 = 300_000.0;

pub(crate) fn run(rounds: Option<usize>) -> Result<Outcome, Box<dyn Error>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    let turns = if rounds < ROUNDS { 1 } else { TURNS };
    let mut found: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for _ in 0..turns {
        for name in PARTS.iter().map(|(name, _)| *name).chain(["reload"]) {
            let output = Command::new(std::env::current_exe()?)
                .args(["bridge-part", name, "--rounds", &rounds.to_string()])
                .output()?;
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(format!("the part `{name}`: {why}").into());
            }
            let rows: BTreeMap<String, (f64, f64)> = serde_json::from_slice(&output.stdout)?;
            rows.into_iter().for_each(|(row, cost)| found.entry(row).or_default().push(cost));
        }
    }
    let names = PARTS.iter().flat_map(|(_, rows)| *rows).copied().chain([RELOAD]);
    let mut costs: Vec<Cost> =
        names.filter_map(|name| Some(middle(name, found.get_mut(name)?))).collect();
    let exports = export::measure(turns)?;
    costs.extend(exports.costs);
    let mut notes = machine(None, rounds);
    notes.extend(exports.notes);
    let (floor, figures) = (EMPTY, exports.figures);
    let mut outcome =
        Outcome { suite: "bridge", notes, costs, figures, floor, ..Outcome::default() };
    let min = |name| outcome.cost(name).min_ns;
    let net = |name| min(name) - min(EMPTY);
    let (more, beside) = (min(OFF) - min(NONE), min(BESIDE) - min(FMT));
    let goals = [
        (format!("{ON}: {:.1} ns, at most {EVENT_MOST}", net(ON)), net(ON) <= EVENT_MOST),
        (format!("{SPAN}: {:.1} ns, at most {SPAN_MOST}", net(SPAN)), net(SPAN) <= SPAN_MOST),
        (format!("{OFF}: {more:.2} ns over no subscriber, at most {OFF_MOST}"), more <= OFF_MOST),
        (
            format!("{ON_TOGGLE}: {:.0} us, at most 300", min(ON_TOGGLE) / 1000.0),
            min(ON_TOGGLE) <= TOGGLE_MOST,
        ),
        (
            format!(
                "{BESIDE}: {beside:.0} ns over fmt alone, at most {:.0}, the event itself",
                net(ON)
            ),
            beside <= net(ON),
        ),
    ];
    outcome.goals = goals.into_iter().map(|(what, met)| Goal { what, met }).collect();
    outcome.goals.extend(exports.goals);
    Ok(outcome)
}

fn middle(name: &'static str, all: &mut [(f64, f64)]) -> Cost {
    let min_ns = all.iter().map(|(min, _)| *min).fold(f64::INFINITY, f64::min);
    all.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    Cost { name, min_ns, median_ns: all[all.len() / 2].1 }
}

/// One way, in this process: prints its rows.
pub(crate) fn part(name: &str, rounds: Option<usize>) -> Result<(), Box<dyn Error>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    let costs = match name {
        "none" => {
            pin()?;
            let rows = &mut [
                Row::new(EMPTY, CHUNK, empty),
                Row::new(NONE, CHUNK, events),
                Row::new(LOG_NONE, CHUNK, records),
            ];
            measure(rows, rounds)
        }
        "off" => off(rounds)?,
        "on" => on(rounds)?,
        "noop" => {
            tracing::subscriber::set_global_default(NoOp)?;
            pin()?;
            measure(&mut [Row::new(NOOP, CHUNK, events)], rounds)
        }
        "fmt" => {
            tracing_subscriber::fmt().with_writer(std::io::sink).init();
            pin()?;
            measure(&mut [Row::new(FMT, CHUNK, events)], rounds)
        }
        "filtered" => {
            let fmt = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
            tracing_subscriber::registry().with(fmt).with(Empty.with_filter(Always)).init();
            pin()?;
            measure(&mut [Row::new(FILTERED, CHUNK, events)], rounds)
        }
        "registry" => {
            tracing_subscriber::registry().init();
            pin()?;
            measure(&mut [Row::new(SPAN_REGISTRY, CHUNK, spans)], rounds)
        }
        "beside" => beside(rounds)?,
        "toggle" => toggling::ours(rounds / 10 + 1)?,
        "reload" => toggling::reload(rounds / 10 + 1)?,
        other => return Err(format!("there is no part `{other}`").into()),
    };
    let rows: BTreeMap<&str, Value> =
        costs.iter().map(|cost| (cost.name, json!([cost.min_ns, cost.median_ns]))).collect();
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}

/// Lets what was learnt at the first hits settle, which takes milliseconds.
fn settled() {
    for _ in 0..10 {
        events(1);
        spans(1);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn off(rounds: usize) -> Result<Vec<Cost>, Box<dyn Error>> {
    gracepoint_tracing::init()?;
    settled();
    log::info!(target: "beside", "so that it is known");
    while log::max_level() > log::LevelFilter::Off {
        records(CHUNK); // until there is nothing to learn
    }
    pin()?;
    let rows = &mut [
        Row::new(OFF, CHUNK, events),
        Row::new(SPAN_OFF, CHUNK, spans),
        Row::new(LOG_OFF, CHUNK, records),
    ];
    let mut costs = measure(rows, rounds);
    let _beside = gracepoint::Tracer::global().tracepoints("beside:*").attach(|_| {})?;
    costs.extend(measure(&mut [Row::new(LOG_BESIDE, CHUNK, records)], rounds));
    Ok(costs)
}

fn on(rounds: usize) -> Result<Vec<Cost>, Box<dyn Error>> {
    gracepoint_tracing::init()?;
    settled();
    let recorder = Recorder::start("bridge*", &["--buffer", "256M"])?;
    pin()?;
    let rows = &mut [Row::new(ON, CHUNK, events), Row::new(SPAN, CHUNK, spans)];
    let costs = measure(rows, rounds);
    let recorded = recorder.stop()?;
    // An event, and four moments of a span, for each iteration of the rounds that count and of those that warm up.
    let iterations = (rounds + rounds / 10 + 1) as u64 * CHUNK;
    if (recorded.events, recorded.lost) != (iterations * 5, 0) {
        let (events, lost) = (recorded.events, recorded.lost);
        return Err(
            format!("of {} events {events} were recorded, {lost} lost", iterations * 5).into()
        );
    }
    Ok(costs)
}

fn beside(rounds: usize) -> Result<Vec<Cost>, Box<dyn Error>> {
    let fmt = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
    tracing_subscriber::registry().with(fmt).with(gracepoint_tracing::layer()).init();
    settled();
    pin()?;
    let mut costs = measure(&mut [Row::new(BESIDE_OFF, CHUNK, events)], rounds);
    let recorder = Recorder::start("bridge*", &["--buffer", "256M"])?;
    costs.extend(measure(&mut [Row::new(BESIDE, CHUNK, events)], rounds));
    let recorded = recorder.stop()?;
    let iterations = (rounds + rounds / 10 + 1) as u64 * CHUNK;
    if (recorded.events, recorded.lost) != (iterations, 0) {
        return Err(format!("{} of {iterations} events were recorded", recorded.events).into());
    }
    Ok(costs)
}

fn empty(n: u64) {
    for i in 0..n {
        black_box(i);
    }
}

#[inline(never)]
fn events(n: u64) {
    for i in 0..n {
        let number = black_box(i);
        tracing::info!(name: "sample", target: "bridge", number, size = number ^ 1, name = black_box(NAME));
    }
}

#[inline(never)]
fn records(n: u64) {
    for i in 0..n {
        log::info!(target: "bridge", "number {} of {}", black_box(i), black_box(NAME));
    }
}

#[inline(never)]
fn spans(n: u64) {
    for i in 0..n {
        let number = black_box(i);
        let _in =
            tracing::info_span!(target: "bridge", "work", number, size = number ^ 1).entered();
    }
}

/// What any layer with a filter of its own costs beside another one: this does nothing.
struct Empty;

impl<S: Subscriber> Layer<S> for Empty {}

/// A filter that lets everything through.
struct Always;

impl<S> Filter<S> for Always {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }
}

/// Takes everything, looks at all values, and does nothing.
struct NoOp;

struct Look;

impl Visit for Look {
    fn record_u64(&mut self, _: &Field, value: u64) {
        black_box(value);
    }
    fn record_str(&mut self, _: &Field, value: &str) {
        black_box(value);
    }
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        black_box(value);
    }
}

impl Subscriber for NoOp {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        attributes.record(&mut Look);
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut Look);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
