//! What a sample takes of the program, one by one: a thread, 32 calls deep, reads the clock again and again, and what is
//! missing between two readings was taken from it. In turn: nothing but the machine's ticks; the kernel's interrupt of
//! a sampling event that looks at no stack; the same with the stack; and the program's own timer, signal and handler.
//!
//! What the program's own way adds to a tick is the signal and the handler; what the stack adds to the kernel's
//! interrupt is following the frames. The interrupt itself is the same for any profiler: the timer that
//! the hypervisor emulates, on a virtual machine.

use super::Findings;
use perf_event::events::Software;
use perf_event::{Builder, SampleFlag};
use std::error::Error;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DEPTH: &str = "32";
const SECONDS: &str = "2";
/// Samples per second of the kernel's. The program's own come with the ticks, which are fewer.
const HZ: u64 = 4000;
/// Less than that between two readings is the reading.
const LEAST: Duration = Duration::from_nanos(300);
/// Bytes for the kernel's samples, of all seconds.
const RING: usize = 8 << 20;

const TICKS: &str = "gap: a tick of the machine's";
const BARE: &str = "gap: kernel's sample, no stack";
const CHAIN: &str = "gap: kernel's sample, depth 32";
const OWN: &str = "gap: tick and own sample, depth 32";

#[inline(never)]
fn deep(depth: u32, until: Instant, gaps: &mut Vec<u64>) -> u64 {
    if depth > 0 {
        return black_box(deep(depth - 1, until, gaps).wrapping_add(1));
    }
    let mut last = Instant::now();
    while last < until {
        let now = Instant::now();
        if now - last >= LEAST {
            gaps.push((now - last).as_nanos() as u64);
        }
        last = now;
    }
    gaps.len() as u64
}

/// The measured program: `SECONDS DEPTH HOW`. Prints the gaps, in nanoseconds.
pub(super) fn program(args: &[String]) {
    let number = |at: usize| args.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(1);
    let how = args.get(2).map_or("", String::as_str);
    let mut builder = Builder::new(Software::CPU_CLOCK);
    builder.sample_frequency(HZ).sample(SampleFlag::IP | SampleFlag::TID | SampleFlag::TIME);
    builder.include_kernel().exclude_callchain_kernel(true);
    if how == "chain" {
        builder.sample(SampleFlag::CALLCHAIN);
    }
    let sampled = match how {
        "bare" | "chain" => {
            let opened = builder.build().and_then(|counter| counter.sampled(RING));
            let Ok(mut sampler) = opened else { return };
            let _ = sampler.enable();
            Some(sampler)
        }
        "own" => {
            // Returns when the recorder that has launched it has begun.
            let _ = gracepoint::init();
            None
        }
        _ => None,
    };
    let mut gaps = Vec::with_capacity(1 << 20);
    let until = Instant::now() + Duration::from_secs(number(0));
    black_box(deep(number(1) as u32, until, &mut gaps));
    drop(sampled);
    let texts: Vec<String> = gaps.iter().map(u64::to_string).collect();
    println!("{}", texts.join(" "));
}

fn measure(found: &mut Findings, row: &str, how: &str) -> Result<(), Box<dyn Error>> {
    let exe = std::env::current_exe()?;
    let dir = std::env::temp_dir().join(format!("gracepoint-gaps-{}", std::process::id()));
    let mut command = Command::new(&exe);
    if how == "own" {
        command = crate::recorder::gracepoint()?;
        command.args(["record", "--quiet", "--force", "--profile", "--in-program"]);
        command.args(["--freq", "1000", "-o"]).arg(&dir).arg("--").arg(&exe);
    }
    command.args(["burn", "gaps", SECONDS, DEPTH, how]).stderr(Stdio::null());
    let said = command.output()?;
    let _ = std::fs::remove_dir_all(&dir);
    for gap in String::from_utf8_lossy(&said.stdout).split_whitespace() {
        found.add(row, Duration::from_nanos(gap.parse()?));
    }
    Ok(())
}

pub(super) fn run(found: &mut Findings) -> Result<(), Box<dyn Error>> {
    for (row, how) in [(TICKS, "none"), (BARE, "bare"), (CHAIN, "chain"), (OWN, "own")] {
        measure(found, row, how)?;
    }
    let between = |low: &str, high: &str| Some(found.median(high)? - found.median(low)?);
    let goals = [
        ("signal and handler of a program that samples itself", between(TICKS, OWN)),
        ("the stack, of a sample that the kernel takes", between(BARE, CHAIN)),
    ];
    for (what, cost) in goals {
        let Some(cost) = cost else {
            found.notes.push(format!("{what}: not measured here"));
            continue;
        };
        found.goal(format!("{what}, p50 at depth 32: {cost:.2} µs, at most 3"), cost <= 3.0);
    }
    Ok(())
}
