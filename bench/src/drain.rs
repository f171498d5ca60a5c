//! Suite `drain`: whether a recorder keeps up. Events are fired at a paced rate, and none may be
//! lost; then as fast as one thread can, where losses must be counted exactly. And how long an event takes to its
//! line in the output of `gracepoint stream`.
//!
//! The recorder is a process of its own, `gracepoint record` with a buffer of 64 MiB, and writes to
//! the temporary directory; with two CPUs each has one.

mod prompt;

use std::error::Error;
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::recorder::{Recorded, Recorder};
use crate::table::machine;
use crate::{NAME, Sample};
use prompt::{PROMISED, Prompt};

/// Events a second of the paced run.
const RATE: u64 = 5_000_000;
/// Events between two looks at the clock: 100 µs of them.
const BATCH: u64 = RATE / 10_000;
/// How long the paced run takes where nothing else is said, and the longest unpaced one.
const SECONDS: u64 = 30;
const UNPACED_SECONDS: u64 = 5;
/// Bytes per event of LTTng for the same payload, file overhead included.
const MOST_BYTES: f64 = 39.0;

/// One run.
struct Run {
    name: &'static str,
    took: Duration,
    fired: u64,
    recorded: Recorded,
}

impl Run {
    /// Millions of events a second.
    fn speed(&self, events: u64) -> f64 {
        events as f64 / self.took.as_secs_f64() / 1e6
    }

    fn bytes_per_event(&self) -> f64 {
        self.recorded.bytes as f64 / self.recorded.events.max(1) as f64
    }

    fn is_exact(&self) -> bool {
        self.fired == self.recorded.events + self.recorded.lost
    }
}

pub(crate) fn run(seconds: Option<u64>, json: bool) -> Result<(), Box<dyn Error>> {
    let seconds = seconds.unwrap_or(SECONDS);
    gracepoint::init()?;
    let paced = once("paced", Duration::from_secs(seconds), pace)?;
    let unpaced = once("unpaced", Duration::from_secs(seconds.min(UNPACED_SECONDS)), hurry)?;
    let prompt = prompt::measure()?;
    let text = match json {
        true => in_json(&[paced, unpaced], &prompt),
        false => in_text(&paced, &unpaced, &prompt),
    };
    print!("{text}");
    Ok(())
}

fn once(
    name: &'static str,
    length: Duration,
    fire: fn(Duration) -> u64,
) -> Result<Run, Box<dyn Error>> {
    let recorder = Recorder::start("bench:sample", &["--buffer", "64M"])?;
    let begin = Instant::now();
    let fired = fire(length);
    let took = begin.elapsed();
    let recorded = recorder.stop()?;
    Ok(Run { name, took, fired, recorded })
}

/// Fires at the rate; what the machine took away is made up for.
fn pace(length: Duration) -> u64 {
    let begin = Instant::now();
    let mut fired = 0;
    loop {
        let passed = begin.elapsed();
        if passed >= length {
            return fired;
        }
        let due = (passed.as_micros() as u64).saturating_mul(RATE) / 1_000_000;
        if fired < due {
            fire(fired, BATCH);
            fired += BATCH;
        } else {
            std::hint::spin_loop();
        }
    }
}

fn hurry(length: Duration) -> u64 {
    let begin = Instant::now();
    let mut fired = 0;
    while begin.elapsed() < length {
        fire(fired, 100 * BATCH);
        fired += 100 * BATCH;
    }
    fired
}

fn fire(from: u64, count: u64) {
    for i in from..from + count {
        let i = black_box(i);
        gracepoint::trace!(Sample { number: i, size: i ^ 1, name: black_box(NAME) });
    }
}

fn in_json(runs: &[Run], prompt: &Prompt) -> String {
    let mut text = String::new();
    for run in runs {
        let row = serde_json::json!({
            "suite": "drain",
            "row": run.name,
            "seconds": run.took.as_secs_f64(),
            "fired": run.fired,
            "recorded": run.recorded.events,
            "lost": run.recorded.lost,
            "bytes": run.recorded.bytes,
        });
        text += &format!("{row}\n");
    }
    let Prompt { p50, p99, most } = prompt;
    let row = serde_json::json!({
        "suite": "drain",
        "row": "stream",
        "p50_ms": p50,
        "p99_ms": p99,
        "most_ms": most,
    });
    text += &format!("{row}\n");
    text
}

fn in_text(paced: &Run, unpaced: &Run, prompt: &Prompt) -> String {
    let mut text = String::new();
    // The rounds are one, and nothing is pinned.
    for note in machine(None, 1) {
        let _ = writeln!(text, "{note}");
    }
    let _ = writeln!(
        text,
        "\n{:8} {:>8} {:>12} {:>12} {:>12} {:>14} {:>14} {:>9}",
        "drain", "seconds", "fired", "recorded", "lost", "fired M/s", "drained M/s", "bytes/ev"
    );
    for run in [paced, unpaced] {
        let _ = writeln!(
            text,
            "{:8} {:8.1} {:12} {:12} {:12} {:14.2} {:14.2} {:9.2}",
            run.name,
            run.took.as_secs_f64(),
            run.fired,
            run.recorded.events,
            run.recorded.lost,
            run.speed(run.fired),
            run.speed(run.recorded.events),
            run.bytes_per_event(),
        );
    }
    let Prompt { p50, p99, most } = prompt;
    let _ = writeln!(
        text,
        "\nstream: from an event to its line {p50:.1} ms (p50), {p99:.1} ms (p99), {most:.1} ms at most\n"
    );
    let speed = paced.speed(paced.fired);
    let kept = paced.recorded.lost == 0;
    let full_speed = speed >= RATE as f64 / 1e6 * 0.99;
    for (met, what) in [
        (kept && full_speed, format!("paced: {speed:.2} M events/s, {} lost", paced.recorded.lost)),
        (paced.is_exact() && unpaced.is_exact(), "fired = recorded + lost in both".into()),
        (
            paced.bytes_per_event() <= MOST_BYTES,
            format!("{:.2} bytes per event, at most {MOST_BYTES}", paced.bytes_per_event()),
        ),
        (
            *p99 <= PROMISED.as_secs_f64() * 1e3,
            format!("stream: {p99:.1} ms from event to line (p99), at most {PROMISED:?}"),
        ),
    ] {
        let _ = writeln!(text, "{}: {what}", if met { "met" } else { "NOT MET" });
    }
    text
}
