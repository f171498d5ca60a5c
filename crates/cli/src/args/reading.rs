//! Arguments of the commands that read a trace: `report`, `info`, `hist`, `export`.

use crate::quantity::parse_duration;
use crate::record::DEFAULT_DIR;
use clap::{Args, ValueEnum};
use gracepoint_analysis::filter::Filter;
use gracepoint_analysis::report::Time;
use gracepoint_analysis::when::When;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Show in which functions the time went, of a trace with a profile: their own, with what they called, by
    /// thread and by span
    #[arg(long)]
    pub(crate) profile: bool,
    /// How to tell time
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) time: TimeFormat,
    /// Instead of events, the functions that were recorded, or those that match GLOB: how often they were called
    /// and how long they took
    #[arg(long, value_name = "GLOB", num_args = 0..=1, require_equals = true, default_missing_value = "*", value_parser = super::parse_glob)]
    pub(crate) functions: Option<String>,
    /// With --functions: the largest first
    #[arg(long, value_enum, value_name = "BY", default_value_t, requires = "functions")]
    pub(crate) sort: SortBy,
    /// Print one JSON object per event
    #[arg(long)]
    pub(crate) json: bool,
}

/// By what functions are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SortBy {
    /// Time from entry to exit
    #[default]
    Total,
    /// Time outside of other functions that were recorded
    #[value(name = "self")]
    Own,
    /// How often
    Calls,
    /// The average
    Avg,
    /// The longest
    Max,
    /// What 99 % of the calls do not exceed
    P99,
    /// From A to Z
    Name,
}

#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// Directory of the trace
    #[arg(value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) dir: PathBuf,
    /// Only calls of functions that match, with what they call; may be given more than once
    #[arg(long = "functions", value_name = "GLOB", value_parser = super::parse_glob)]
    pub(crate) functions: Vec<String>,
    /// Only so many levels
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) depth: Option<u32>,
    /// Name the function also where it ends
    #[arg(long)]
    pub(crate) tail: bool,
    #[command(flatten)]
    pub(crate) choose: ChooseArgs,
    /// Print one JSON object per call, when it ends, and per event
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which events of a trace.
#[derive(Debug, Args)]
pub(crate) struct ChooseArgs {
    /// Only events that match this pattern; may be given more than once
    #[arg(short, long = "event", value_name = "GLOB", value_parser = super::parse_glob)]
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
    /// Fail at the end where the trace is damaged or not whole, also where it was not asked for
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

    /// Whether parts of the trace need not be read for it.
    pub(crate) fn steps_over(&self) -> bool {
        let Filter { events: _, threads, since, until, last } = self.filter();
        !threads.is_empty() || since.is_some() || until.is_some() || last.is_some()
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
pub(crate) struct SlowArgs {
    /// Directory of the trace
    #[arg(value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) dir: PathBuf,
    /// The spans, by their whole name without :begin
    #[arg(short, long, value_name = "NAME")]
    pub(crate) event: String,
    /// Only those that took so long: 10ms, 1s
    #[arg(long, value_name = "T", default_value = "0ms", value_parser = parse_duration)]
    pub(crate) over: Duration,
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
    /// Of a trace with a profile, stacks of functions instead of spans (folded, flamegraph; pprof has them
    /// anyway)
    #[arg(long)]
    pub(crate) profile: bool,
    /// Draw this numeric field as a curve, beside those marked by #[event(counter)] (perfetto, chrome); may be given
    /// more than once
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
    /// Stacks of functions of a profile, for `go tool pprof` and its like
    Pprof,
}

impl ExportFormat {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[derive(Debug, Args)]
pub(crate) struct ViewArgs {
    /// Directory of the trace
    #[arg(value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) dir: PathBuf,
    /// File to write; default: gracepoint.html, with --open one among the temporary files
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Open it in the browser ($BROWSER, or what the desktop has)
    #[arg(long)]
    pub(crate) open: bool,
    /// Replace the file
    #[arg(long)]
    pub(crate) force: bool,
    /// Draw this numeric field as a curve, beside those marked by #[event(counter)]; may be given more than once
    #[arg(long = "counter", value_name = "EVENT.FIELD")]
    pub(crate) counters: Vec<String>,
    #[command(flatten)]
    pub(crate) choose: ChooseArgs,
    /// Print a JSON object about what was written
    #[arg(long)]
    pub(crate) json: bool,
}
