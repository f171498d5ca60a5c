//! The command line: clap's definitions feed the parser and the help.

use crate::console::Color;
use crate::discover::Which;
use crate::quantity::{parse_duration, parse_size};
use crate::record::DEFAULT_DIR;
use clap::{Args, Parser, Subcommand};
use gracepoint_analysis::filter::Filter;
use gracepoint_analysis::when::When;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Trace Rust programs while they run.
///
/// A program that calls `gracepoint::init()` can be listed, recorded and left alone again without
/// being restarted. Data goes to stdout, words to stderr.
#[derive(Debug, Parser)]
#[command(name = "gracepoint", version, after_long_help = EXAMPLES)]
pub(crate) struct Cli {
    /// When to colour: auto is when stdout is a terminal and NO_COLOR is not set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  gracepoint ps                              which programs can be traced
  gracepoint list --name kv 'http:*'         what one of them can tell
  gracepoint record -p 4242 --duration 2s    record all its events for two seconds
  gracepoint record -- ./kv --port 0         record a program from its start
  gracepoint report | less                   what was recorded

Environment:
  GRACEPOINT_DIR  where programs put their sockets; only there is looked for them
  NO_COLOR        no colour

Exit status:
  0 done; 1 the answer is no; 2 an error; 130 interrupted before anything was recorded.
  `record -- CMD` exits as CMD does, or with 125 (our failure), 126 (CMD cannot be executed) or
  127 (no such command).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the programs that can be traced
    #[command(after_long_help = "\
Examples:
  gracepoint ps
  gracepoint ps --json | jq -r 'select(.answers) | .name'

PID is ours; a program in a container, which has another one there, is shown with it. EVENTS is how
many events are switched on, of how many there are. Exits with 1 when there is no
program.")]
    Ps(PsArgs),
    /// Show the events of a program: fields, types, documentation, where and whether they are on
    #[command(after_long_help = "\
Examples:
  gracepoint list -p 4242
  gracepoint list --name kv 'kv:*' 'http:re*'
  gracepoint list --name kv --json | jq -r .name

A GLOB has * for anything, ? for one character and [a-z] for a set. Exits with 1 when none
matches.")]
    List(ListArgs),
    /// Record events of a running program or of a command
    #[command(
        override_usage = "gracepoint record [OPTIONS] <-p PID|--name NAME>
       gracepoint record [OPTIONS] -- CMD [ARGS]",
        after_long_help = "\
Examples:
  gracepoint record -p 4242                            until Ctrl-C or the program's end
  gracepoint record --name kv -e 'kv:*' --duration 2s
  gracepoint record -o slow.trace --buffer 64M -- ./kv --port 0

A recording ends by Ctrl-C, after --duration, or with the program. What does not fit into the
buffer while the disk is busy is lost, counted and reported. The trace is a directory in CTF 1.8,
which babeltrace2 and Trace Compass read too."
    )]
    Record(RecordArgs),
    /// Show the events of a trace in order of time
    #[command(after_long_help = "\
Examples:
  gracepoint report
  gracepoint report slow.trace -e 'http:*' --limit 20
  gracepoint report --since 12:30:00 --until 12:30:01.5 --thread 'worker-*'
  gracepoint report --since -10s --last 100
  gracepoint report --json | jq .

A TIME is 2026-01-02T03:04:05.678 or 2026-01-02, 03:04:05.678 (on the day of the trace) or
@1767323045.678, all UTC; or +1.5s after the first event; or -200ms before the trace's end. What is
chosen must meet all conditions; --last counts what meets the others. A trace that is damaged or not
whole is read as far as it goes, and what is missing is said; with --strict that is an error at the
end (2).")]
    Report(ReportArgs),
    /// Show what a trace contains: events, losses, threads, clock
    #[command(after_long_help = "\
Examples:
  gracepoint info
  gracepoint info --since -10s --thread 'worker-*'
  gracepoint info slow.trace --json | jq .lost

Conditions are those of `gracepoint report`. Losses are those told by what is chosen.")]
    Info(InfoArgs),
    /// Show how the values of a field, or the lengths of a span, are distributed
    #[command(after_long_help = "\
Examples:
  gracepoint hist -e kv:get -f latency
  gracepoint hist -e kv:get -f latency --by hit
  gracepoint hist slow.trace -e db:query -f duration     length of a span")]
    Hist(HistArgs),
    /// Say why a Linux kernel is stuck, from the text of its log
    #[command(after_long_help = "\
Examples:
  dmesg | gracepoint explain -
  journalctl -k -b -1 -o short-monotonic | gracepoint explain - --json
  gracepoint explain console.log --dot | dot -Tsvg > why.svg

Hung tasks, RCU and SRCU stalls, lockups, lists of blocked tasks and of held locks become chains of
who waits for whom, each hop with its lines and how sure it is. A chain ends at a culprit, at a
cycle, or where the log says no more; then it is said what to collect. Exits with 0 when there is a
culprit or a cycle, with 1 when the log does not say.")]
    Explain(ExplainArgs),
}

/// Which program.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// The program with this process id
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// The only program whose name matches this pattern
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Target {
    pub(crate) fn which(&self) -> Which {
        which(self.pid, self.name.as_deref())
    }
}

fn which(pid: Option<u32>, name: Option<&str>) -> Which {
    match (pid, name) {
        (Some(pid), _) => Which::Pid(pid),
        (None, name) => Which::Name(name.unwrap_or("*").to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Print one JSON object per program
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only events that match one of these patterns
    #[arg(value_name = "GLOB")]
    pub(crate) globs: Vec<String>,
    /// Print one JSON object per event
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which program to record; none with a command.
#[derive(Debug, Args)]
#[group(required = true, multiple = false, args = ["pid", "name", "command"])]
pub(crate) struct RecordTarget {
    /// The program with this process id
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// The only program whose name matches this pattern
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl RecordTarget {
    pub(crate) fn which(&self) -> Which {
        which(self.pid, self.name.as_deref())
    }
}

#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    pub(crate) target: RecordTarget,
    /// Record events that match this pattern; may be given more than once
    #[arg(short, long = "event", value_name = "GLOB", default_value = "*")]
    pub(crate) events: Vec<String>,
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
pub(crate) struct ReportArgs {
    /// Directory of the trace
    #[arg(value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) choose: ChooseArgs,
    /// Stop after so many events
    #[arg(short, long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// How to tell time
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) time: TimeFormat,
    /// Print one JSON object per event
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which events of a trace.
#[derive(Debug, Args)]
pub(crate) struct ChooseArgs {
    /// Only events that match this pattern; may be given more than once
    #[arg(short, long = "event", value_name = "GLOB")]
    events: Vec<String>,
    /// Only threads with this id or whose name matches; may be given more than once
    #[arg(long = "thread", value_name = "TID|GLOB")]
    threads: Vec<String>,
    /// Not before this moment: 12:30:00.5, 2026-01-02T03:04, +1.5s, -10s
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<When>,
    /// Before this moment
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<When>,
    /// Of all that, the last so many
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// Fail at the end where the trace is damaged or not whole
    #[arg(long)]
    pub(crate) strict: bool,
}

impl ChooseArgs {
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            events: self.events.clone(),
            threads: self.threads.clone(),
            since: self.since,
            until: self.until,
            last: self.last,
        }
    }
}

/// How a report tells time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum TimeFormat {
    /// Time of day, UTC
    #[default]
    Utc,
    /// Date and time of day, UTC
    Date,
    /// Seconds since the first event shown
    Relative,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Directory of the trace
    #[arg(value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) choose: ChooseArgs,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HistArgs {
    /// Directory of the trace
    #[arg(value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) dir: PathBuf,
    /// The event, by its whole name; for a span without :begin
    #[arg(short, long, value_name = "EVENT")]
    pub(crate) event: String,
    /// The field; `duration` of a span is its length
    #[arg(short, long, value_name = "FIELD")]
    pub(crate) field: String,
    /// Group by the values of this field
    #[arg(long, value_name = "FIELD")]
    pub(crate) by: Option<String>,
    /// Fail at the end where the trace is damaged or not whole
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The log; - for stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the graph for Graphviz
    #[arg(long, conflicts_with = "json")]
    pub(crate) dot: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("\n  gracepoint {}", command.get_name());
            assert!(help.contains(&example), "{}: {help}", command.get_name());
        }
    }

    #[test]
    fn a_program_or_a_command_is_asked_for() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("gracepoint record").is_err());
        assert!(parse("gracepoint record -p 1 --name x").is_err());
        assert!(parse("gracepoint record -p 1 -- true").is_err());
        assert!(parse("gracepoint record -p 0").is_err());
        assert!(parse("gracepoint list").is_err());
        let parsed = parse("gracepoint record -e a -e b -- sh -c true").unwrap();
        let Command::Record(args) = parsed.command else { panic!("it is record") };
        assert_eq!(args.events, ["a", "b"]);
        assert_eq!(args.command, ["sh", "-c", "true"]);
    }
}
