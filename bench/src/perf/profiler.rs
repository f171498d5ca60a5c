//! What the profiler costs and how right it is: on a program of known parts, this very binary run again.
//!
//! * CPU time of the recorder while it samples two busy threads 1,000 times per second each;
//! * what a sample costs the program in all: its work in a fixed CPU time with and without a very high rate,
//!   without frames to follow ([`gaps`](super::gaps) has its parts, and a stack);
//! * the parts that come out, beside those of `perf record -g` in the same run.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Findings, is_there};

/// The parts of the known program, in percent.
const PARTS: [(&str, f64); 3] = [("sixty", 60.0), ("thirty", 30.0), ("ten", 10.0)];
const PERCENT: u64 = 20_000;

macro_rules! burners {
    ($($name:ident $percent:literal)*) => { $(
        #[inline(never)]
        fn $name(seed: u64) -> u64 {
            let mut x = seed;
            for n in 0..$percent * PERCENT {
                x = black_box(x.wrapping_mul(31) ^ n);
            }
            x
        }
    )* };
}

burners! { burn_sixty 60 burn_thirty 30 burn_ten 10 }

#[inline(never)]
fn deep(depth: u32, seed: u64) -> u64 {
    match depth {
        0 => burn_ten(seed),
        _ => black_box(deep(depth - 1, seed).wrapping_add(1)),
    }
}

/// The known program: `burn THREADS SECONDS DEPTH`. Prints the rounds of all threads per second of CPU time.
pub(crate) fn program(args: &[String]) {
    if args.first().is_some_and(|word| word == "gaps") {
        return super::gaps::program(&args[1..]);
    }
    let number = |at: usize| args.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(1);
    let (threads, seconds, depth) = (number(0), number(1), number(2) as u32);
    let begun = Instant::now();
    let burn = || {
        let mut rounds = 0u64;
        while begun.elapsed() < Duration::from_secs(seconds) {
            let x = match depth {
                0 | 1 => burn_ten(burn_thirty(burn_sixty(rounds))),
                depth => deep(depth, rounds),
            };
            black_box(x);
            rounds += 1;
        }
        rounds
    };
    let rounds: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(burn)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    println!("{rounds} {cpu}");
}

/// A program under a profiler, or without one.
struct Ran {
    /// CPU time of a round, in nanoseconds.
    round_ns: f64,
    cpu: f64,
}

/// Runs the known program, as the last words of `under` if there is one.
fn burn(under: Option<Command>, args: [&str; 3]) -> Result<Ran, Box<dyn Error>> {
    let exe = std::env::current_exe()?;
    let mut command = match under {
        Some(mut command) => {
            command.arg(&exe);
            command
        }
        None => Command::new(&exe),
    };
    let said = command.arg("burn").args(args).stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&said.stdout);
    let mut words = text.lines().next().unwrap_or_default().split(' ').map(str::parse::<f64>);
    match (words.next(), words.next()) {
        (Some(Ok(rounds)), Some(Ok(cpu))) => Ok(Ran { round_ns: cpu * 1e9 / rounds, cpu }),
        _ => Err(format!("the known program said {text:?}").into()),
    }
}

pub(super) fn run(found: &mut Findings) -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("gracepoint-profile-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let done = compare(found, &dir);
    let _ = std::fs::remove_dir_all(&dir);
    done
}

/// CPU time of children that have ended.
fn children() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    let time = |t: nix::sys::time::TimeVal| {
        Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()).unsigned_abs())
    };
    usage.map_or(Duration::ZERO, |usage| time(usage.user_time()) + time(usage.system_time()))
}

fn compare(found: &mut Findings, dir: &Path) -> Result<(), Box<dyn Error>> {
    let trace = dir.join("t.trace");
    let ours = |hz: &str| -> Result<Command, Box<dyn Error>> {
        let mut command = crate::recorder::gracepoint()?;
        command.args(["profile", "--quiet", "--force", "--freq", hz, "-o"]).arg(&trace).arg("--");
        Ok(command)
    };

    // What it takes of a CPU.
    let before = children();
    let begun = Instant::now();
    let Ok(ran) = burn(Some(ours("1000")?), ["2", "5", "1"]) else {
        found.notes.push("profiler: perf events cannot be opened here, no rows".into());
        return Ok(());
    };
    let recorder = (children() - before).as_secs_f64() - ran.cpu;
    let part = recorder * 100.0 / begun.elapsed().as_secs_f64();
    found.goal(
        format!("profiler at 1,000 Hz, 2 busy threads: {part:.2} % of a CPU, at most 1"),
        part <= 1.0,
    );

    // What the parts are.
    let parts = parts_of_ours(&trace)?;
    tell(found, "gracepoint profile", &parts);
    if is_there("perf") {
        let data = dir.join("perf.data");
        let data = data.to_string_lossy();
        let mut command = Command::new("perf");
        command.args(["record", "-q", "-g", "-F", "1000", "-e", "cpu-clock", "-o", &data, "--"]);
        burn(Some(command), ["2", "5", "1"])?;
        tell(found, "perf record -g", &parts_of_perf(&data)?);
    } else {
        found.notes.push("perf is not installed: no row beside ours".into());
    }

    // What a sample costs the program in all: rounds of a fixed work, with and without. Most of it is the
    // interrupt and what it throws out of the caches; what the stack takes of it is in `gaps`.
    let (mut without, mut with) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        without = without.min(burn(None, ["1", "1", "32"])?.round_ns);
        with = with.min(burn(Some(ours("10000")?), ["1", "1", "32"])?.round_ns);
    }
    // Of each second of CPU time 10,000 samples have taken so much.
    let sample_ns = (1.0 - without / with) * 1e9 / 10_000.0;
    found.notes.push(format!(
        "a sample of the kernel's costs the program {:.2} µs in all, at 10,000 Hz",
        sample_ns / 1000.0
    ));
    Ok(())
}

fn tell(found: &mut Findings, who: &str, parts: &[f64; 3]) {
    // Where nothing was found the parts are no numbers, and nothing is near.
    let near = |((_, want), part): (&(&str, f64), &f64)| (part - want).abs() <= 2.0;
    let all_near = PARTS.iter().zip(parts).all(near);
    let text = format!("{:.1}/{:.1}/{:.1}", parts[0], parts[1], parts[2]);
    found.goal(format!("{who}: 60/30/10 comes out as {text}, within 2 points"), all_near);
}

fn parts_of_ours(trace: &Path) -> Result<[f64; 3], Box<dyn Error>> {
    let mut command = crate::recorder::gracepoint()?;
    let said = command.args(["report", "--profile", "--json"]).arg(trace).output()?;
    let profile: serde_json::Value = serde_json::from_slice(&said.stdout)?;
    let functions = profile["functions"].as_array().ok_or("no functions")?;
    let of = |name: &str| -> f64 {
        let own = functions.iter().filter(|f| f["name"].as_str().is_some_and(|n| n.contains(name)));
        own.filter_map(|f| f["self_ns"].as_f64()).sum()
    };
    let all = PARTS.map(|(name, _)| of(&format!("burn_{name}")));
    let sum: f64 = all.iter().sum();
    Ok(all.map(|part| part * 100.0 / sum))
}

fn parts_of_perf(data: &str) -> Result<[f64; 3], Box<dyn Error>> {
    let mut command = Command::new("perf");
    command.args([
        "report",
        "-i",
        data,
        "--stdio",
        "--no-children",
        "-g",
        "none",
        "-F",
        "overhead,sym",
    ]);
    let said = command.output()?;
    let text = String::from_utf8_lossy(&said.stdout);
    let of = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.contains(name));
        let percent = |line: &str| line.split('%').next()?.trim().parse::<f64>().ok();
        lines.filter_map(percent).sum()
    };
    let all = PARTS.map(|(name, _)| of(&format!("burn_{name}")));
    let sum: f64 = all.iter().sum();
    Ok(all.map(|part| part * 100.0 / sum))
}
