//! Suite `perf`: what it takes to open, disable and close perf events, beside the kernel's own on its
//! tracepoints; closing two thousand while SIGPROF storms and a reader sleeps; and what the profiler costs,
//! beside `perf record -g` ([`profiler`]), and what a sample takes ([`gaps`]).
//!
//! The kernel's closing waits for grace periods, one event after the other, so it has few rounds. Without the right
//! to open perf events its rows are left out, and the notes say so.

mod gaps;
mod profiler;

pub(crate) use profiler::program as burning;

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gracepoint::{PerfEvent, Tracer};
use gracepoint_bench_points::{ATTRS, HITS};
use nix::sys::pthread::{Pthread, pthread_kill};
use nix::sys::signal::Signal;
use perf_event::Builder;
use perf_event::events::Tracepoint;
use std::os::unix::thread::JoinHandleExt;

use crate::table::Goal;

const ROUNDS: usize = 200;
/// Rounds of the kernel's, which take seconds.
const KERNEL_ROUNDS: usize = 3;
/// Events that are closed at once.
const MANY: usize = 60;

/// Times of one thing that was done again and again, in microseconds.
struct Row {
    what: String,
    times: Vec<f64>,
    /// Of times that somebody else has taken: how many, the least, the median.
    told: Option<(usize, f64, f64)>,
}

impl Row {
    fn at(&self, part: f64) -> f64 {
        if let Some((_, least, median)) = self.told {
            return match part {
                0.0 => least,
                0.5 => median,
                _ => f64::NAN,
            };
        }
        let mut times = self.times.clone();
        times.sort_unstable_by(f64::total_cmp);
        times.get((times.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN)
    }

    fn rounds(&self) -> usize {
        self.told.map_or(self.times.len(), |(rounds, ..)| rounds)
    }
}

/// What was found.
#[derive(Default)]
pub(crate) struct Findings {
    rows: Vec<Row>,
    notes: Vec<String>,
    goals: Vec<Goal>,
}

impl Findings {
    fn add(&mut self, what: impl Into<String>, time: Duration) {
        let (what, time) = (what.into(), time.as_nanos() as f64 / 1000.0);
        match self.rows.iter_mut().find(|row| row.what == what) {
            Some(row) => row.times.push(time),
            None => self.rows.push(Row { what, times: vec![time], told: None }),
        }
    }

    /// A row of which the measured one tells so much: how often, the least, the median.
    fn told(&mut self, what: &str, told: (usize, f64, f64)) {
        self.rows.push(Row { what: what.into(), times: Vec::new(), told: Some(told) });
    }

    fn median(&self, what: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.what == what).map(|row| row.at(0.5))
    }

    fn goal(&mut self, what: String, met: bool) {
        self.goals.push(Goal { what, met });
    }

    /// That the median of a row is at most so much.
    fn at_most(&mut self, what: &str, most: f64) {
        if let Some(median) = self.median(what) {
            self.goal(format!("{what}: {median:.1} µs, at most {most}"), median <= most);
        }
    }
}

const OPEN: &str = "ours: open and enable";
const DISABLE: &str = "ours: disable";
const DISABLE_FLOOR: &str = "floor: the system calls of a disable";
const CLOSE: &str = "ours: close";
const CLOSE_MANY: &str = "ours: close 60 at once";
const DROP_MANY: &str = "ours: close 60, one after the other";
const STORM: &str = "ours: close 2,000 at once in a storm, a reader asleep";
const STORM_CPU: &str = "ours: the same, CPU time of the closing thread";
const STORM_EACH: &str = "ours: close 2,000 in a storm, one after the other";
const KERNEL_OPEN: &str = "kernel: open and enable";
const KERNEL_CLOSE: &str = "kernel: close";
const KERNEL_MANY: &str = "kernel: close 60 tracepoints, one after the other";

pub(crate) fn run(rounds: Option<usize>, json: bool) -> Result<(), Box<dyn Error>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    let mut found = Findings::default();
    found.notes.extend(crate::table::machine(None, rounds));
    ours(rounds, &mut found)?;
    storm(rounds.min(20), &mut found)?;
    eprintln!("ours: done; now the kernel's, which takes its time");
    kernel(rounds, &mut found);
    gaps::run(&mut found)?;
    profiler::run(&mut found)?;
    for what in [OPEN, DISABLE, CLOSE] {
        found.at_most(what, 20.0);
    }
    found.at_most(CLOSE_MANY, 200.0);
    found.at_most(STORM, 10_000.0);
    found.at_most(STORM_EACH, 10_000.0);
    print!("{}", if json { as_json(&found) } else { as_text(&found) });
    Ok(())
}

fn open(n: usize) -> Result<PerfEvent, gracepoint::Error> {
    PerfEvent::open(ATTRS[n % ATTRS.len()]())
}

/// Waits until what was closed has been freed.
fn settle() {
    while Tracer::global().statistics().waiting_callbacks > 0 {
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn ours(rounds: usize, found: &mut Findings) -> Result<(), Box<dyn Error>> {
    let floor = gracepoint_bench_peers::Switching::new()?;
    for round in 0..rounds + 10 {
        let begin = Instant::now();
        let handle = open(round)?;
        let opened = begin.elapsed();
        let begin = Instant::now();
        handle.disable();
        let disabled = begin.elapsed();
        handle.enable()?;
        let begin = Instant::now();
        drop(handle);
        let closed = begin.elapsed();
        let begin = Instant::now();
        floor.switch();
        let floor = begin.elapsed();
        if round >= 10 {
            found.add(OPEN, opened);
            found.add(DISABLE, disabled);
            found.add(DISABLE_FLOOR, floor);
            found.add(CLOSE, closed);
        }
        settle();
    }
    for _ in 0..rounds.min(50) {
        let handles = (0..MANY).map(open).collect::<Result<Vec<_>, _>>()?;
        let begin = Instant::now();
        PerfEvent::close_all(handles);
        found.add(CLOSE_MANY, begin.elapsed());
        settle();
        let handles = (0..MANY).map(open).collect::<Result<Vec<_>, _>>()?;
        let begin = Instant::now();
        drop(handles);
        found.add(DROP_MANY, begin.elapsed());
        settle();
    }
    Ok(())
}

/// Where the reader sleeps.
#[derive(gracepoint::Event)]
#[event(name = "bench:sleep")]
struct Sleep {
    n: u64,
}

/// SIGPROF to each thread in turn, as fast as one can.
fn begin_storm(over: &Arc<AtomicBool>, threads: Vec<Pthread>) -> JoinHandle<()> {
    let over = Arc::clone(over);
    std::thread::spawn(move || {
        while !over.load(Relaxed) {
            for thread in &threads {
                // They are joined after this one.
                let _ = pthread_kill(*thread, Signal::SIGPROF);
            }
        }
    })
}

/// Of the calling thread.
fn cpu_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

fn storm(rounds: usize, found: &mut Findings) -> Result<(), Box<dyn Error>> {
    let storms = Arc::new(AtomicUsize::new(0));
    signal_hook::flag::register_usize(signal_hook::consts::SIGPROF, storms, 1)?;
    let over = Arc::new(AtomicBool::new(false));
    let hitter = |_| {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            while !over.load(Relaxed) {
                HITS.iter().for_each(|hit| hit(1));
            }
        })
    };
    let hitters: Vec<_> = (0..2).map(hitter).collect();
    let targets = hitters.iter().map(JoinHandleExt::as_pthread_t).collect();
    let storming = begin_storm(&over, targets);
    for round in 0..rounds {
        let (asleep, told) = channel::<()>();
        let (wake, sleeps) = channel::<()>();
        let sleeps = std::sync::Mutex::new(sleeps);
        let probe = Tracer::global().tracepoint::<Sleep>().attach(move |_| {
            let _ = asleep.send(());
            let _ = sleeps.lock().map(|sleeps| sleeps.recv());
        })?;
        let reader = std::thread::spawn(|| gracepoint::trace!(Sleep { n: 1 }));
        told.recv()?;
        let handles = (0..ATTRS.len()).map(open).collect::<Result<Vec<_>, _>>()?;
        let (begin, cpu) = (Instant::now(), cpu_time());
        if round % 2 == 0 {
            PerfEvent::close_all(handles);
            found.add(STORM, begin.elapsed());
            // The rest it waited for a CPU, which the storm and its threads have too.
            found.add(STORM_CPU, cpu_time() - cpu);
        } else {
            drop(handles);
            found.add(STORM_EACH, begin.elapsed());
        }
        let kept = Tracer::global().statistics().waiting_bytes;
        wake.send(())?;
        reader.join().map_err(|_| "the reader panicked")?;
        drop(probe);
        settle();
        if round == 0 {
            let each = kept / ATTRS.len();
            found.notes.push(format!("kept for the sleeping reader: {each} bytes for each handle"));
        }
    }
    over.store(true, Relaxed);
    storming.join().map_err(|_| "the storm panicked")?;
    hitters.into_iter().try_for_each(|hitter| hitter.join().map_err(|_| "a hitter panicked"))?;
    Ok(())
}

/// Numbers of tracepoints of the kernel, as many as are wanted.
fn kernel_tracepoints(root: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for system in ["sched", "syscalls", "kmem"] {
        let events = std::fs::read_dir(root.join("events").join(system)).into_iter().flatten();
        for event in events.flatten() {
            let number = std::fs::read_to_string(event.path().join("id")).unwrap_or_default();
            found.extend(number.trim().parse::<u64>());
        }
    }
    found.truncate(MANY);
    found
}

fn kernel(rounds: usize, found: &mut Findings) {
    let mounted = crate::toggle::outside::Tracefs::find();
    let root = mounted.path();
    let numbers = kernel_tracepoints(root);
    let build = |number: u64| Builder::new(Tracepoint::with_id(number)).build();
    if numbers.len() < MANY || build(numbers[0]).is_err() {
        let text = "the kernel's perf events: no tracefs or no right to open them, no rows";
        found.notes.push(text.into());
        return;
    }
    for n in 0..rounds.min(20) {
        let begin = Instant::now();
        let Ok(mut counter) = build(numbers[n % MANY]) else { return };
        let _ = counter.enable();
        found.add(KERNEL_OPEN, begin.elapsed());
        let begin = Instant::now();
        drop(counter);
        found.add(KERNEL_CLOSE, begin.elapsed());
    }
    for _ in 0..KERNEL_ROUNDS.min(rounds) {
        let counters: Vec<_> = numbers.iter().filter_map(|&number| build(number).ok()).collect();
        if counters.len() < MANY {
            return;
        }
        let begin = Instant::now();
        drop(counters);
        found.add(KERNEL_MANY, begin.elapsed());
    }
}

fn as_json(found: &Findings) -> String {
    let mut text = String::new();
    for row in &found.rows {
        let row = serde_json::json!({
            "suite": "perf", "row": row.what, "min_us": row.at(0.0), "median_us": row.at(0.5),
            "p99_us": row.at(0.99), "rounds": row.rounds(),
        });
        text += &format!("{row}\n");
    }
    for goal in &found.goals {
        let goal = serde_json::json!({"suite": "perf", "goal": goal.what, "met": goal.met});
        text += &format!("{goal}\n");
    }
    for note in &found.notes {
        text += &format!("{}\n", serde_json::json!({"suite": "perf", "note": note}));
    }
    text
}

fn as_text(found: &Findings) -> String {
    let mut text = String::new();
    for note in &found.notes {
        text += &format!("{note}\n");
    }
    let width = found.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
    text += &format!(
        "\n{:width$}  {:>11}  {:>11}  {:>11}  {:>6}\n",
        "perf", "min µs", "median µs", "p99 µs", "rounds"
    );
    for row in &found.rows {
        let at = |part: f64| match row.at(part) {
            time if time.is_nan() => "-".to_owned(),
            time if time < 10.0 => format!("{time:.2}"),
            time => format!("{time:.1}"),
        };
        text += &format!(
            "{:width$}  {:>11}  {:>11}  {:>11}  {:6}\n",
            row.what,
            at(0.0),
            at(0.5),
            at(0.99),
            row.rounds()
        );
    }
    text + &crate::table::verdicts(&found.goals)
}

/// Whether a command is there.
fn is_there(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok_and(|said| said.status.success())
}
