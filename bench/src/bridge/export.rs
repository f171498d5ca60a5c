//! Exports: the time and the memory of `gracepoint export` and `gracepoint view`, each a process of its own.
//!
//! The trace is the one that suite `read` makes, of a million events and of a quarter of them: what of the memory
//! grows with the trace shows as the difference of the two. Peak memory is what the kernel says of the child that
//! ran the command (`VmHWM`): the child is this program, which runs the command and then reads its own.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::{PAGE, PERFETTO};
use crate::measure::{Cost, summary};
use crate::read::{Folder, write};
use crate::table::Goal;

/// Events of the two traces.
const FEW: u64 = 250_000;
const MANY: u64 = 1_000_000;
/// What `export` may take for a million events, in seconds.
const SECONDS_MOST: f64 = 2.0;
/// Peak memory with four times the events, over that with one: flat, but for what an allocator keeps.
const GROWTH_MOST: f64 = 1.1;

/// What was measured.
#[derive(Default)]
pub(super) struct Exports {
    /// Nanoseconds per event.
    pub(super) costs: Vec<Cost>,
    pub(super) figures: Vec<(String, f64, &'static str)>,
    pub(super) notes: Vec<String>,
    pub(super) goals: Vec<Goal>,
}

/// A run of a command.
struct Ran {
    ns: f64,
    peak_kib: u64,
    bytes: u64,
}

/// Runs both commands `turns` times on both traces.
pub(super) fn measure(turns: usize) -> Result<Exports, Box<dyn Error>> {
    let mut exports = Exports::default();
    let folders = [Folder::new("export-few")?, Folder::new("export-many")?];
    for (folder, events) in folders.iter().zip([FEW, MANY]) {
        let dir = folder.path().join("t.trace");
        fs::create_dir(&dir)?;
        write(&dir, events)?;
    }
    for (name, args) in [(PERFETTO, &["export", "--to", "perfetto"][..]), (PAGE, &["view"])] {
        let mut times = Vec::new();
        let mut peaks = [u64::MAX; 2];
        let mut bytes = 0;
        for _ in 0..turns {
            for (at, folder) in folders.iter().enumerate() {
                let ran = run(folder.path(), args)?;
                peaks[at] = peaks[at].min(ran.peak_kib);
                if at == 1 {
                    times.push(ran.ns / MANY as f64);
                    bytes = ran.bytes;
                }
            }
        }
        let cost = summary(name, times);
        let seconds = cost.min_ns * MANY as f64 / 1e9;
        let speed = 1e3 / cost.min_ns;
        let [few, many] = peaks.map(|kib| kib as f64 / 1024.0);
        let figures = [
            (format!("{name}, {MANY} events"), seconds, "s"),
            (format!("{name}, events per second"), speed, "M"),
            (format!("{name}, {MANY} events, written"), bytes as f64 / 1048576.0, "MiB"),
            (format!("{name}, {FEW} events, peak memory"), few, "MiB"),
            (format!("{name}, {MANY} events, peak memory"), many, "MiB"),
        ];
        exports.figures.extend(figures);
        if name == PERFETTO {
            let what =
                format!("{name}: {seconds:.2} s for a million events, at most {SECONDS_MOST}");
            exports.goals.push(Goal { what, met: seconds <= SECONDS_MOST });
            let times = many / few;
            let what = format!(
                "{name}: {times:.2} x the memory for 4 x the events, at most {GROWTH_MOST}"
            );
            exports.goals.push(Goal { what, met: times <= GROWTH_MOST });
        }
        exports.costs.push(cost);
    }
    exports.notes.push(format!(
        "{PAGE}: when its first picture is there is for a browser to say: GRACEPOINT_VIEW={MANY} cargo test \
         --release -p gracepoint-cli --test e2e many_events"
    ));
    Ok(exports)
}

/// Runs `gracepoint ARGS t.trace` in a child.
fn run(dir: &Path, args: &[&str]) -> Result<Ran, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("export-part").args(args).args(["--force", "-o", "out", "t.trace"]);
    let output = command.current_dir(dir).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let number = |name: &str| told[name].as_u64().ok_or_else(|| format!("no {name} in {told}"));
    let (ns, peak_kib) = (number("ns")? as f64, number("peak_kib")?);
    Ok(Ran { ns, peak_kib, bytes: fs::metadata(dir.join("out"))?.len() })
}

/// Runs a command of `gracepoint` in this process, and prints its time and the most memory that the process had.
pub(crate) fn part(args: impl Iterator<Item = OsString>) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let args: Vec<OsString> = std::iter::once("gracepoint".into()).chain(args).collect();
    let done = gracepoint_cli::main_with(args);
    let ns = begin.elapsed().as_nanos() as u64;
    if done != std::process::ExitCode::SUCCESS {
        return Err("the command failed".into());
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let peak_kib = peak.ok_or("the kernel does not tell the most memory")?;
    println!("{}", serde_json::json!({ "ns": ns, "peak_kib": peak_kib }));
    Ok(())
}
