//! What a sample takes of the program, one by one.
//!
//! Of the kernel's: a thread, 32 calls deep, reads the clock again and again, and samples itself by an event of the
//! kernel's that looks at no stack, or at the stack, too. What is missing between two readings with a sample in between was
//! taken by the interrupt; what the stack adds to it is following the frames. The interrupt itself is the same for any
//! profiler: on a virtual machine, mostly the timer that the hypervisor emulates.
//!
//! Of a program that samples itself: its handler measures itself, from its first instruction to its last, 32 calls deep
//! too, and the program's log has the least and the median. Beside it the least that it can be: the 4 KiB of stack
//! copied by the kernel, between two readings of the clock; and what a signal takes whose handler stores one word.

use super::Findings;
use gracepoint_bench_peers::deep;
use nix::sys::signal::{Signal, raise};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use perf_event::events::Software;
use perf_event::{Builder, Clock, SampleFlag};
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, BufReader, IoSliceMut};
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

/// Rounds of what the handler is compared with, and what lies between two: as between two samples, so that the caches are
/// as others have left them.
const FLOOR_ROUNDS: usize = 500;
const APART_NS: u64 = 4_000_000;
/// What the handler copies of the stack at once.
const COPIED: usize = 4096;

const OWN: &str = "own: handler of a sample, entry to exit, depth 32";
const FLOOR: &str = "floor: 4 KiB of stack copied by the kernel";
const EMPTY: &str = "empty: signal to oneself, handler that stores a word";
const BARE: &str = "gap: kernel's sample, no stack";
const CHAIN: &str = "gap: kernel's sample, depth 32";

fn now_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec.cast_unsigned() * 1_000_000_000 + t.tv_nsec.cast_unsigned()
}

/// The measured program: `SECONDS DEPTH HOW`. Prints the gaps with samples in them, in nanoseconds.
pub(super) fn program(args: &[String]) {
    let number = |at: usize| args.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(1);
    let how = args.get(2).map_or("", String::as_str);
    if how == "own" {
        let _ = gracepoint::init();
        println!("ready");
        black_box(deep(number(1) as u32, now_ns() + number(0) * 3_000_000_000, LEAST_NS, 0));
        return;
    }
    if let "copy" | "signal" = how {
        let _ = signal_hook::flag::register_usize(
            signal_hook::consts::SIGUSR2,
            std::sync::Arc::default(),
            1,
        );
        if let Err(why) = floor(number(1) as u32, how) {
            eprintln!("{why}");
        }
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
    let until = now_ns() + number(0) * 1_000_000_000;
    let gaps = deep(number(1) as u32, until, LEAST_NS, 1 << 20);
    let _ = sampler.disable();
    let mut texts = Vec::new();
    while let Some(record) = sampler.next_record() {
        // Where it was, who, when.
        let bytes = record.to_contiguous();
        let word = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (9, Some(time)) = (record.ty(), word(16)) else { continue };
        // Of a shorter chain it is not known what was interrupted.
        if how == "chain" && word(24).is_none_or(|frames| frames < number(1)) {
            continue;
        }
        let after = gaps.partition_point(|[begin, _]| *begin <= time);
        let gap = after.checked_sub(1).map(|at| gaps[at]).filter(|[_, end]| *end >= time);
        texts.extend(gap.map(|[begin, end]| (end - begin).to_string()));
    }
    println!("{}", texts.join(" "));
}

/// What the handler cannot do without, at the end of calls as deep as it finds them: `how` is "copy" or "signal". Prints
/// nanoseconds.
#[inline(never)]
fn floor(depth: u32, how: &str) -> Result<u64, Box<dyn Error>> {
    if depth > 0 {
        return Ok(black_box(floor(depth - 1, how)?.wrapping_add(1)));
    }
    let (here, own) = (0_u64, nix::unistd::Pid::this());
    let address = (&raw const here).addr();
    // No further than to the end of a page: what comes next is there as well, but not always on the stack.
    let len = COPIED - address % COPIED;
    let parts = [len, COPIED - len].map(|len| RemoteIoVec { base: address, len });
    let mut copy = vec![0; COPIED];
    let mut times = Vec::with_capacity(FLOOR_ROUNDS);
    for _ in 0..FLOOR_ROUNDS {
        let next = now_ns() + APART_NS;
        while now_ns() < next {}
        let begun = now_ns();
        match how {
            "copy" => {
                process_vm_readv(own, &mut [IoSliceMut::new(&mut copy)], &parts)?;
            }
            _ => raise(Signal::SIGUSR2)?,
        }
        times.push((now_ns() - begun).to_string());
    }
    println!("{}", times.join(" "));
    Ok(black_box(here))
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

/// How many frames the samples of a trace have, in the median.
fn depth(dir: &std::path::Path) -> Result<usize, Box<dyn Error>> {
    let mut report = crate::recorder::gracepoint()?;
    let said = report.args(["report", "--json", "-e", "gp:sample"]).arg(dir).output()?;
    let text = String::from_utf8_lossy(&said.stdout);
    let frames = |line: &str| -> Option<usize> {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        event["fields"]["stack"].as_array().map(Vec::len)
    };
    let mut depths: Vec<usize> = text.lines().filter_map(frames).collect();
    depths.sort_unstable();
    Ok(depths.get(depths.len() / 2).copied().unwrap_or(0))
}

/// Of the handler's own measurements: how many, the least, the median, in microseconds.
fn handler() -> Result<(usize, f64, f64), Box<dyn Error>> {
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
    recorder.args(["--freq", "1000", "--duration", "5s", "-o"]).arg(&dir);
    let recorded = recorder.output()?;
    let log = crate::recorder::gracepoint()?.args(["show", "--log", "-p", &pid]).output()?;
    let _ = program.kill();
    program.wait()?;
    let depth = depth(&dir)?;
    let _ = std::fs::remove_dir_all(&dir);
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let after =
        |words: &str| -> Option<f64> { log.split_once(words)?.1.split(' ').next()?.parse().ok() };
    let told = (after(" took "), after("the quickest in "), after("half of them in at most "));
    let (Some(samples), Some(least), Some(median)) = told else {
        let said = String::from_utf8_lossy(&recorded.stderr);
        return Err(format!("no word of samples: {log} {said}").into());
    };
    if depth < DEPTH.parse()? {
        return Err(format!("half of the samples have {depth} frames or fewer").into());
    }
    // A median of a few is none.
    if samples < 100.0 {
        return Err(format!("{samples} samples only").into());
    }
    Ok((samples as usize, least, median))
}
pub(super) fn run(found: &mut Findings) -> Result<(), Box<dyn Error>> {
    match handler() {
        Ok(own @ (_, _, median)) => {
            found.told(OWN, own);
            let what = "our handler, in a program that samples itself, p50 at depth 32";
            found.goal(format!("{what}: {median:.2} µs, at most 3"), median <= 3.0);
        }
        // The rest of the suite has nothing to do with it.
        Err(why) => {
            found.goal(format!("a program that samples itself was not measured: {why}"), false)
        }
    }
    measure(found, FLOOR, "copy")?;
    measure(found, EMPTY, "signal")?;
    measure(found, BARE, "bare")?;
    measure(found, CHAIN, "chain")?;
    match (found.median(BARE), found.median(CHAIN)) {
        (Some(bare), Some(chain)) => {
            // All that the program does without, the interrupt and the return from it included. No handler of ours is in it.
            let whole =
                "the kernel's own sample (its interrupt and all, nothing of ours), p50 at depth 32";
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
