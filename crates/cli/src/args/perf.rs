//! Arguments of `perf` and of the launcher that it starts commands by.

use crate::quantity::parse_duration;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct PerfArgs {
    #[command(subcommand)]
    pub(crate) command: PerfCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PerfCommand {
    /// Count what a process does, and what the system does for it
    #[command(
        override_usage = "gracepoint perf stat [OPTIONS] -p PID
       gracepoint perf stat [OPTIONS] -- CMD [ARGS]",
        after_long_help = "\
Examples:
  gracepoint perf stat -p 4242 --duration 10s
  gracepoint perf stat -p 4242 -e kv:get,task-clock,page-faults --interval 1s
  gracepoint perf stat -e kv:get,sched:sched_switch -- ./kv --port 0
  gracepoint perf stat -p 4242 --per-thread --json

An EVENT is task-clock, cpu-clock, page-faults, minor-faults, major-faults, context-switches or
cpu-migrations; the name of a tracepoint of the program; or one of the kernel's (`sched:sched_switch`), where
tracefs can be read. Of a CMD, those of the first program that calls gracepoint::init are counted; it waits there until
they are. Ends by Ctrl-C, after --duration, or with the process; with CMD, exits as CMD does."
    )]
    Stat(PerfStatArgs),
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["pid", "command"]))]
pub(crate) struct PerfStatArgs {
    /// The process with this id
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,
    /// Count this; may be given more than once, or several with commas between
    #[arg(
        short,
        long = "event",
        value_name = "EVENT",
        value_delimiter = ',',
        default_value = "task-clock,context-switches,cpu-migrations,page-faults"
    )]
    pub(crate) events: Vec<String>,
    /// Show what was counted each time that this has passed: 500ms, 1s
    #[arg(short = 'I', long, value_name = "T", value_parser = parse_duration)]
    pub(crate) interval: Option<Duration>,
    /// End after this time: 500ms, 2s, 1m
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Show what each thread that is there at the begin did; a program's own tracepoints are counted for all together
    #[arg(long)]
    pub(crate) per_thread: bool,
    /// Print one JSON object per count
    #[arg(long)]
    pub(crate) json: bool,
    /// Start this command and count it from its start
    #[arg(last = true, value_name = "CMD", num_args = 1..)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// What to become
    #[arg(last = true, value_name = "CMD", num_args = 1.., required = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct KernelSideArgs {
    /// The process whose threads it is about
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: u32,
    /// Names of the kernel's tracepoints
    #[arg(value_name = "EVENT")]
    pub(crate) events: Vec<String>,
}
