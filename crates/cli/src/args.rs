//! The command line: clap's definitions feed the parser and the help.

use crate::console::Color;
use crate::discover::{self, Live, Which};
use crate::failure;
use crate::quantity::{parse_duration, parse_size};
use crate::record::DEFAULT_DIR;
use crate::record::session::Rotate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use gracepoint_analysis::filter::Filter;
use gracepoint_analysis::report::Time;
use gracepoint_analysis::when::When;
use gracepoint_wire::schema::{Context, Level};
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
  gracepoint record -p 4242 -o day --rotate 1h --keep 24

A recording ends by Ctrl-C, after --duration, or with the program. What does not fit into the
buffer while the disk is busy is lost, counted and reported. The trace is a directory in CTF 1.8,
which babeltrace2 and Trace Compass read too."
    )]
    Record(RecordArgs),
    /// Switch events on and leave them on, recording into memory
    #[command(after_long_help = "\
Examples:
  gracepoint start -e all                       in every program of yours that runs
  gracepoint start -p 4242 -e 'kv:*' --buffer 64M
  gracepoint start --session slow -e 'db:*' --flight-recorder

The session stays when this command has ended; nobody drains it. When its buffer is full new events
are lost and counted, or with --flight-recorder the oldest ones. `gracepoint stop` switches it off and
keeps what it has, `extract` writes that to a trace, `reset` forgets it. It ends with the program.")]
    Start(StartArgs),
    /// Switch off what was started; what is recorded is kept
    #[command(after_long_help = "\
Examples:
  gracepoint stop
  gracepoint stop -p 4242 --session slow

Exits with 1 when there is no such session.")]
    Stop(SessionArgs),
    /// Switch on again what was stopped; what is recorded is kept
    #[command(after_long_help = "\
Examples:
  gracepoint restart
  gracepoint restart -p 4242 --session slow

Exits with 1 when there is no such session.")]
    Restart(SessionArgs),
    /// Show what is on, in whose name and since when, and how full its buffer is
    #[command(after_long_help = "\
Examples:
  gracepoint show
  gracepoint show --log
  gracepoint show --json | jq 'select(.lost > 0)'

Exits with 1 when there is no session in any program.")]
    Show(ShowArgs),
    /// Write out what was recorded since `start`, and free it
    #[command(after_long_help = "\
Examples:
  gracepoint extract
  gracepoint extract -p 4242 --session slow -o slow.trace

One session becomes a trace in DIR; of several, each becomes one in a directory DIR/NAME-PID-SESSION.
When a trace cannot be written, the session stays as it is. Exits with 1 when there is no session.")]
    Extract(ExtractArgs),
    /// Write out what the buffers hold while recording goes on
    #[command(after_long_help = "\
Examples:
  gracepoint snapshot -p 4242 -o now.trace
  gracepoint snapshot --session flight

Takes nothing away and disturbs nobody: of a session from `start` or of one that `record` is writing,
the events that are in memory now. Exits with 1 when there is no session.")]
    Snapshot(ExtractArgs),
    /// Switch everything off and free it, whoever left it on
    #[command(after_long_help = "\
Examples:
  gracepoint reset
  gracepoint reset -p 4242

Ends all sessions of the programs, those of other users of this command too: a `gracepoint record`
that is under way finishes its trace with what it has.")]
    Reset(ResetArgs),
    /// Show how often events happen, without recording them
    #[command(after_long_help = "\
Examples:
  gracepoint stat --interval 1s
  gracepoint stat -p 4242 -e 'kv:*' --duration 10s
  gracepoint stat --interval 500ms --json | jq 'select(.event == \"kv:get\") | .rate'

Counts in the programs themselves, a few nanoseconds for each hit, whatever else is on; nothing is
lost. Of a span its begins are counted. Ends by Ctrl-C, after --duration, or with the programs.")]
    Stat(StatArgs),
    /// Show events of a running program as they happen
    #[command(after_long_help = "\
Examples:
  gracepoint stream -p 4242
  gracepoint stream --name kv -e 'http:*' --json | jq .fields

In order of time, within a tenth of a second; beside whatever else records. What cannot be shown fast
enough is lost and counted (gp:loss). Ends by Ctrl-C, after --duration or --limit, or with the
program.")]
    Stream(StreamArgs),
    /// Turn what a flight recorder left, or holds, into a trace
    #[command(after_long_help = "\
Examples:
  GRACEPOINT_FLIGHT=/dev/shm/kv ./kv --port 0     a program that records into memory all the time
  gracepoint recover /dev/shm/kv -o crash.trace   after it was killed, or while it runs
  gracepoint recover /dev/shm/kv/4242.gp1.flight  of several programs one

Every event that the program had committed is in the trace, unless later ones have taken its place:
those are counted. The files stay; with several recorders in DIR the output holds a trace of each.")]
    Recover(RecoverArgs),
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
    /// Write a trace for other viewers: Perfetto, Chrome, flame graphs
    #[command(after_long_help = "\
Examples:
  gracepoint export --to perfetto                       gracepoint.pftrace, for https://ui.perfetto.dev
  gracepoint export slow.trace --to flamegraph -o slow.svg
  gracepoint export --to chrome --since -10s --counter kv:get.took -o last.json
  gracepoint export --to folded -o - | inferno-flamegraph > spans.svg

Spans are slices: on their thread where they nest, else (ended on another thread, or held across an
await) on tracks of their own. Other events are instants with their fields, and losses have a track.
folded and flamegraph tell the microseconds spent in each stack of spans. Conditions are those of
`gracepoint report`. The file is there when it is whole, or not at all.")]
    Export(ExportArgs),
    /// Say why a Linux kernel is stuck, from the text of its log
    #[command(after_long_help = "\
Examples:
  dmesg | gracepoint explain -
  journalctl -k -b -1 -o short-monotonic | gracepoint explain - --json
  gracepoint explain console.log --html > why.html
  gracepoint explain console.log --format report --vmlinux /usr/lib/debug/boot/vmlinux

Hung tasks, RCU and SRCU stalls, lockups, lists of blocked tasks and of held locks become chains of
who waits for whom, each hop with its lines and how sure it is. A chain ends at a culprit, at a
cycle, or where the log says no more; then it is said what to collect. Exits with 0 when there is a
culprit or a cycle, with 1 when the log does not say.")]
    Explain(ExplainArgs),
}

/// Which programs.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Targets {
    /// The program with this process id; may be given more than once. Default: all programs
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,
    /// The programs whose name matches this pattern
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Targets {
    pub(crate) fn find(&self) -> failure::Result<Vec<Live>> {
        discover::find_all(&self.pid, self.name.as_deref())
    }
}

/// A pattern of event names; `all` is `*`.
fn parse_glob(text: &str) -> Result<String, String> {
    Ok(if text == "all" { "*".to_owned() } else { text.to_owned() })
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

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Switch on events that match this pattern, or `all`; may be given more than once
    #[arg(short, long = "event", value_name = "GLOB", default_value = "*", value_parser = parse_glob)]
    pub(crate) events: Vec<String>,
    /// What to call the session, so that several can be told apart
    #[arg(short, long, value_name = "NAME", default_value = "main")]
    pub(crate) session: String,
    /// Memory for events in each program: 16M, 64MiB; default: the program's choice
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) buffer: Option<u64>,
    /// When the buffer is full, write over the oldest events instead of losing new ones
    #[arg(long)]
    pub(crate) flight_recorder: bool,
}

/// Which kept sessions.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Only sessions of this name
    #[arg(short, long, value_name = "NAME")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Also what happened to sessions lately: who made, took over and ended them
    #[arg(long)]
    pub(crate) log: bool,
    /// Print one JSON object per session
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
}

#[derive(Debug, Args)]
pub(crate) struct ExtractArgs {
    #[command(flatten)]
    pub(crate) which: SessionArgs,
    /// Directory of the trace; with several sessions, of their traces
    #[arg(short, long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) output: PathBuf,
    /// Replace the trace in DIR
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Count events that match this pattern; may be given more than once
    #[arg(short, long = "event", value_name = "GLOB", default_value = "*", value_parser = parse_glob)]
    pub(crate) events: Vec<String>,
    /// Show what was counted each time that this has passed: 500ms, 1s; default: once, at the end
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub(crate) interval: Option<Duration>,
    /// End after this time: 500ms, 2s, 1m
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Print one JSON object per event
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Show events that match this pattern; may be given more than once
    #[arg(short, long = "event", value_name = "GLOB", default_value = "*", value_parser = parse_glob)]
    pub(crate) events: Vec<String>,
    /// End after this time: 500ms, 2s, 1m
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Stop after so many events
    #[arg(short, long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Memory for events on their way: 16M, 64MiB; default: the program's choice
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) buffer: Option<u64>,
    /// How to tell time
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) time: TimeFormat,
    /// Print one JSON object per event
    #[arg(long)]
    pub(crate) json: bool,
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
    #[arg(short, long = "event", value_name = "GLOB", default_value = "*", value_parser = parse_glob)]
    pub(crate) events: Vec<String>,
    /// Of events that have a level, only those up to this one: error, warn, info, debug, trace
    #[arg(short, long, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
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
    /// Add to each event where it happened: cpu, tid, pid, thread, stack; may be given more than once
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = parse_context)]
    pub(crate) context: Vec<Context>,
    /// Record at most so many events of each kind per second
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub(crate) max_rate: Option<u64>,
    /// Record one event of N of each kind: 1/10
    #[arg(long, value_name = "1/N", value_parser = parse_sample)]
    pub(crate) sample: Option<u64>,
    /// Record only so many events that it takes at most this part of a CPU: 1%
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub(crate) max_overhead: Option<u32>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum TimeFormat {
    /// Time of day, UTC
    #[default]
    Utc,
    /// Date and time of day, UTC
    Date,
    /// Seconds since the first event shown
    Relative,
}

impl TimeFormat {
    pub(crate) fn time(self) -> Time {
        match self {
            TimeFormat::Utc => Time::Utc,
            TimeFormat::Date => Time::UtcDate,
            TimeFormat::Relative => Time::Relative,
        }
    }
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
pub(crate) struct ExportArgs {
    /// Directory of the trace
    #[arg(value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) dir: PathBuf,
    /// What to write
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) to: ExportFormat,
    /// File to write, - for stdout; default: gracepoint.pftrace, .json, .folded or .svg
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the file
    #[arg(long)]
    pub(crate) force: bool,
    /// Draw this numeric field as a curve (perfetto, chrome); may be given more than once
    #[arg(long = "counter", value_name = "EVENT.FIELD")]
    pub(crate) counters: Vec<String>,
    #[command(flatten)]
    pub(crate) choose: ChooseArgs,
    /// Print a JSON object about what was exported
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a trace is exported to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Protocol buffers for https://ui.perfetto.dev
    Perfetto,
    /// JSON for chrome://tracing, Perfetto, Speedscope
    Chrome,
    /// Stacks of spans as lines of text
    Folded,
    /// Stacks of spans, drawn as SVG
    Flamegraph,
}

impl ExportFormat {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
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
    /// Print a page with the graph drawn, which loads nothing
    #[arg(long, conflicts_with_all = ["json", "dot"])]
    pub(crate) html: bool,
    /// Print as: text, report (the sections of a bug report), json, dot, html
    #[arg(long, value_name = "FORM", conflicts_with_all = ["json", "dot", "html"])]
    pub(crate) format: Option<Form>,
    /// The kernel that printed the log, with debug information, for lines of the source
    #[arg(long, value_name = "FILE")]
    pub(crate) vmlinux: Option<PathBuf>,
}

/// What an explanation is printed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    Text,
    Report,
    Json,
    Dot,
    Html,
}

impl ExplainArgs {
    pub(crate) fn form(&self) -> Form {
        match (self.format, self.json, self.dot, self.html) {
            (Some(form), ..) => form,
            (_, true, ..) => Form::Json,
            (_, _, true, _) => Form::Dot,
            (_, _, _, true) => Form::Html,
            _ => Form::Text,
        }
    }
}

fn parse_context(text: &str) -> Result<Context, String> {
    let found = Context::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, context)| *context).ok_or_else(|| {
        let names = Context::ALL.map(|(name, _)| name).join(", ");
        format!("`{text}` is no context; there are {names}")
    })
}

/// `1000` or `1000/s`
fn parse_rate(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok().filter(|&n| n > 0);
    number.ok_or_else(|| format!("`{text}` is no rate; write 1000 or 1000/s"))
}

/// `1/10`
fn parse_sample(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix("1/").and_then(|n| n.parse().ok()).filter(|&n| n > 0);
    number.ok_or_else(|| format!("`{text}` is no part of the events; write 1/10"))
}

/// `1%` or `0.5`, as millionths.
fn parse_percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    let ppm = number.map(|percent| percent * 10_000.0).filter(|ppm| (1.0..=1e6).contains(ppm));
    ppm.map(|ppm| ppm as u32).ok_or_else(|| format!("`{text}` is no part of a CPU; write 1%"))
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
    fn pieces_have_a_size_or_a_length() {
        assert_eq!(parse_rotate("64M"), Ok(Rotate::Size(64 << 20)));
        assert_eq!(parse_rotate("10m"), Ok(Rotate::Every(Duration::from_secs(600))));
        for text in ["", "10", "0s", "0M", "M", "x"] {
            assert!(parse_rotate(text).is_err(), "{text}");
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
