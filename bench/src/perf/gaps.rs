//! What a sample takes of the program, one by one.
//!
//! Of the kernel's: a thread, 32 calls deep, reads the clock again and again, and samples itself by an event of the
//! kernel's that looks at no stack, or at the stack, too. What is missing between two readings with a sample in between was
//! taken by the interrupt; what the stack adds to it is following the frames. The interrupt itself is the same for any
//! profiler: on a virtual machine, mostly the timer that the hypervisor emulates.
//!
//! Of a program that samples itself: its handler measures itself, and the program's log has the median.

use super::Findings;
use perf_event::events::Software;
use perf_event::{Builder, Clock, SampleFlag};
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const DEPTH: &str = "32";
const SECONDS: &str = "2";
/// Samples per second of the kernel's. The program's own come with the ticks, which are fewer.
const HZ: u64 = 2000;
/// Less than that between two readings is the reading.
const LEAST_NS: u64 = 300;
/// Bytes for the kernel's samples, of all seconds.
const RING: usize = 8 << 20;

const BARE: &str = "gap: kernel's sample, no stack";
const CHAIN: &str = "gap: kernel's sample, depth 32";

fn now_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec.cast_unsigned() * 1_000_000_000 + t.tv_nsec.cast_unsigned()
}

#[inline(never)]
fn deep(depth: u32, until: u64, gaps: &mut Vec<(u64, u64)>) -> u64 {
    if depth > 0 {
        return black_box(deep(depth - 1, until, gaps).wrapping_add(1));
    }
    let mut last = now_ns();
    while last < until {
        let now = now_ns();
        if now - last >= LEAST_NS {
            gaps.push((last, now));
        }
        last = now;
    }
    gaps.len() as u64
}

/// The measured program: `SECONDS DEPTH HOW`. Prints the gaps with samples in them, in nanoseconds.
pub(super) fn program(args: &[String]) {
    let number = |at: usize| args.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(1);
    let how = args.get(2).map_or("", String::as_str);
    if how == "own" {
        let _ = gracepoint::init();
        println!("ready");
        let (until, mut gaps) = (now_ns() + number(0) * 3_000_000_000, Vec::new());
        black_box(deep(number(1) as u32, until, &mut gaps));
        return;
    }
    let mut builder = Builder::new(Software::CPU_CLOCK);
    builder.sample_frequency(HZ).sample(SampleFlag::IP | SampleFlag::TID | SampleFlag::TIME);
    builder.clockid(Clock::MONOTONIC).include_kernel().exclude_callchain_kernel(true);
    if how == "chain" {
        builder.sample(SampleFlag::CALLCHAIN);
    }
    let opened = builder.build().and_then(|counter| counter.sampled(RING));
    let Ok(mut sampler) = opened else { return };
    let _ = sampler.enable();
    let mut gaps = Vec::with_capacity(1 << 20);
    let until = now_ns() + number(0) * 1_000_000_000;
    black_box(deep(number(1) as u32, until, &mut gaps));
    let _ = sampler.disable();
    let mut texts = Vec::new();
    while let Some(record) = sampler.next_record() {
        // Where it was, who, when.
        let bytes = record.to_contiguous();
        let time = bytes.get(16..24).and_then(|word| word.try_into().ok()).map(u64::from_ne_bytes);
        let (9, Some(time)) = (record.ty(), time) else { continue };
        let after = gaps.partition_point(|(begin, _)| *begin <= time);
        let gap = after.checked_sub(1).map(|at| gaps[at]).filter(|(_, end)| *end >= time);
        texts.extend(gap.map(|(begin, end)| (end - begin).to_string()));
    }
    println!("{}", texts.join(" "));
}

fn measure(found: &mut Findings, row: &str, how: &str) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["burn", "gaps", SECONDS, DEPTH, how]).stderr(Stdio::null());
    let said = command.output()?;
    for gap in String::from_utf8_lossy(&said.stdout).split_whitespace() {
        found.add(row, Duration::from_nanos(gap.parse()?));
    }
    Ok(())
}

/// The median of the handler's own measurements, in microseconds.
fn handler() -> Result<f64, Box<dyn Error>> {
    let mut program = Command::new(std::env::current_exe()?);
    program.args(["burn", "gaps", SECONDS, DEPTH, "own"]).stdout(Stdio::piped());
    let mut program = program.spawn()?;
    let mut line = String::new();
    let said = program.stdout.take().ok_or("no pipe")?;
    BufReader::new(said).read_line(&mut line)?;
    let pid = program.id().to_string();
    let dir = std::env::temp_dir().join(format!("gracepoint-gaps-{}", std::process::id()));
    let mut recorder = crate::recorder::gracepoint()?;
    recorder.args(["record", "-p", &pid, "--quiet", "--force", "--profile", "--in-program"]);
    recorder.args(["--freq", "1000", "--duration", "2s", "-o"]).arg(&dir);
    let recorded = recorder.output()?;
    let log = crate::recorder::gracepoint()?.args(["show", "--log", "-p", &pid]).output()?;
    let _ = program.kill();
    program.wait()?;
    let _ = std::fs::remove_dir_all(&dir);
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let told = log
        .split_once("half of them in at most ")
        .and_then(|(_, rest)| rest.split(' ').next().and_then(|number| number.parse::<f64>().ok()));
    told.ok_or_else(|| {
        format!("no word of samples: {log} {}", String::from_utf8_lossy(&recorded.stderr)).into()
    })
}

pub(super) fn run(found: &mut Findings) -> Result<(), Box<dyn Error>> {
    match handler() {
        Ok(own) => {
            let what = "handler of a program that samples itself, p50 at depth 32";
            found.goal(format!("{what}: {own:.2} µs, at most 3"), own <= 3.0);
        }
        // The rest of the suite has nothing to do with it.
        Err(why) => {
            found.goal(format!("a program that samples itself was not measured: {why}"), false)
        }
    }
    measure(found, BARE, "bare")?;
    measure(found, CHAIN, "chain")?;
    match (found.median(BARE), found.median(CHAIN)) {
        (Some(bare), Some(chain)) => {
            // All that the program does without, the interrupt and the return from it included.
            let whole = "the kernel's sample, whole, p50 at depth 32";
            found.goal(format!("{whole}: {chain:.2} µs, at most 3"), chain <= 3.0);
            let stack = chain - bare;
            let text = format!(
                "what the stack adds to the kernel's sample, p50 at depth 32: {stack:.2} µs, at most 3"
            );
            // Less than nothing is no measurement.
            found.goal(text, (0.0..=3.0).contains(&stack));
        }
        _ => found.notes.push("the kernel's samples: no perf events here, no rows".into()),
    }
    Ok(())
}
