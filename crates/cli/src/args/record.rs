//! Arguments of `record` and `recover`.

use super::functions::ChooseFunctions;
use super::hits::HitArgs;
use super::parse_glob;
use super::profile::RateArgs;
use super::targets::RecordTarget;
use crate::quantity::{parse_duration, parse_size};
use crate::record::DEFAULT_DIR;
use crate::record::session::Rotate;
use clap::Args;
use gracepoint_wire::schema::Level;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    pub(crate) target: RecordTarget,
    /// Record events that match this pattern; may be given more than once. Default: all, or none with
    /// --functions
    #[arg(short, long = "event", value_name = "GLOB", value_parser = parse_glob)]
    pub(crate) events: Vec<String>,
    /// Of events that have a level, only those up to this one: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    #[command(flatten)]
    pub(crate) functions: ChooseFunctions,
    /// Directory of the trace; made by this command
    #[arg(short, long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) output: PathBuf,
    /// Replace the trace in DIR
    #[arg(long)]
    pub(crate) force: bool,
    /// End after this time: 500ms, 2s, 1m
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Memory for events on their way to the disk: 16M, 64MiB; default: the program's choice
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) buffer: Option<u64>,
    /// Keep the latest events in the program's memory, writing over the oldest, and write them out at the
    /// end; `gracepoint snapshot` writes out what is there meanwhile
    #[arg(long, conflicts_with = "rotate")]
    pub(crate) flight_recorder: bool,
    /// Record in pieces, each a trace DIR/000001, DIR/000002 and so on: of this size (64M) or length (10s)
    #[arg(long, value_name = "SIZE|TIME", value_parser = parse_rotate)]
    pub(crate) rotate: Option<Rotate>,
    /// Keep only so many pieces, the latest
    #[arg(long, value_name = "N", requires = "rotate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: Option<u32>,
    #[command(flatten)]
    pub(crate) hits: HitArgs,
    /// Record these tracepoints of the kernel for the program's threads, and when they leave their CPUs, into the
    /// same trace: sched:sched_switch,syscalls:*; `-k list` shows what there is
    #[arg(short, long, value_name = "GLOB", value_delimiter = ',', conflicts_with_all = ["rotate", "flight_recorder"])]
    pub(crate) kernel: Vec<String>,
    /// Sample where the program's threads are on their CPUs, and when they leave them, into the same trace
    #[arg(long, conflicts_with_all = ["rotate", "flight_recorder"])]
    pub(crate) profile: bool,
    /// Let the program take the samples of --profile itself, by a timer for each thread; without this it does
    /// where the kernel takes none. Times off the CPUs are not known then
    #[arg(long, requires = "profile")]
    pub(crate) in_program: bool,
    #[command(flatten)]
    pub(crate) rate: RateArgs,
    /// Say nothing but errors and losses of whole threads
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print a JSON object about the recording when it has ended
    #[arg(long)]
    pub(crate) json: bool,
    /// Start this command and record it from its start
    #[arg(last = true, value_name = "CMD", num_args = 1..)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The directory that was GRACEPOINT_FLIGHT, or a file in it
    #[arg(value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// Directory of the trace; made by this command
    #[arg(short, long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) output: PathBuf,
    /// Replace the trace in the output's place
    #[arg(long)]
    pub(crate) force: bool,
    /// Print a JSON object for each recorder
    #[arg(long)]
    pub(crate) json: bool,
}

impl RecordArgs {
    /// The events that are meant.
    pub(crate) fn globs(&self) -> Vec<String> {
        match self.events.is_empty() && !self.functions.is_any() {
            true => vec!["*".into()],
            false => self.events.clone(),
        }
    }
}

/// A size or a length of time; without a unit it is neither.
fn parse_rotate(text: &str) -> Result<Rotate, String> {
    let bad = || format!("`{text}` is neither a size nor a length of time; write 64M or 10s");
    // `m` is minutes, `M` is mebibytes.
    let sized = || parse_size(text).ok().filter(|_| !text.ends_with(|c: char| c.is_ascii_digit()));
    parse_duration(text)
        .ok()
        .filter(|time| !time.is_zero())
        .map(Rotate::Every)
        .or_else(|| sized().map(Rotate::Size))
        .ok_or_else(bad)
}

/// `1%` or `0.5`, as millionths.
pub(super) fn parse_percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    let ppm = number.map(|percent| percent * 10_000.0).filter(|ppm| (1.0..=1e6).contains(ppm));
    ppm.map(|ppm| ppm as u32).ok_or_else(|| format!("`{text}` is no part of a CPU; write 1%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_a_size_or_a_length() {
        assert_eq!(parse_rotate("64M"), Ok(Rotate::Size(64 << 20)));
        assert_eq!(parse_rotate("10m"), Ok(Rotate::Every(Duration::from_secs(600))));
        for text in ["", "10", "0s", "0M", "M", "x"] {
            assert!(parse_rotate(text).is_err(), "{text}");
        }
    }
}
