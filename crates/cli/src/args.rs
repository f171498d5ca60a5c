//! The command line: clap's definitions feed the parser and the help. Commands and what they say of
//! themselves are here, their arguments in the files beside.

mod explain;
mod functions;
mod hits;
mod live;
mod perf;
mod profile;
mod reading;
mod record;
mod sessions;
mod targets;
mod why;

pub(crate) use explain::{ExplainArgs, Form, Scenario, ScenarioArgs};
pub(crate) use functions::{ChooseFunctions, FunctionsArgs};
pub(crate) use live::{ListArgs, PsArgs, StatArgs, StreamArgs};
pub(crate) use perf::{KernelSideArgs, LaunchArgs, PerfArgs, PerfCommand, PerfStatArgs};
pub(crate) use profile::ProfileArgs;
pub(crate) use reading::{
    ChooseArgs, ExportArgs, ExportFormat, GraphArgs, HistArgs, InfoArgs, ReportArgs, SlowArgs,
    SortBy, ViewArgs,
};
pub(crate) use record::{RecordArgs, RecoverArgs};
pub(crate) use sessions::{ExtractArgs, ResetArgs, SessionArgs, ShowArgs, StartArgs};
pub(crate) use why::{WhyArgs, WhyForm};

use crate::console::Color;
use clap::{Parser, Subcommand};

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
  gracepoint ps                             which programs can be traced
  gracepoint list --name kv 'http:*'        what one of them can tell
  gracepoint record -p 4242 --duration 2s   record its events for two seconds
  gracepoint record -- ./kv --port 0        record a program from its start
  gracepoint report | less                  what was recorded

Environment:
  GRACEPOINT_DIR      where programs put their sockets, and are looked for
  GRACEPOINT_TRACEFS  where tracefs is mounted, if not in its usual places
  NO_COLOR            no colour

Exit status:
  0    done
  1    the answer is no
  2    an error
  130  interrupted before anything was recorded
  `record -- CMD` exits as CMD does, or with
  125  our failure, or CMD could not be traced
  126  CMD cannot be executed
  127  no such command";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the programs that can be traced
    #[command(after_long_help = "\
Examples:
  gracepoint ps
  gracepoint ps --json | jq -r 'select(.answers) | .name'

PID is ours; a program in a container, which has another one there, is shown with it. EVENTS is how \
many events are switched on, of how many there are, and SESSIONS who has sessions there: their names, or \
the commands that record (`gracepoint show` tells more). Exits with 1 when there is no program.")]
    Ps(PsArgs),
    /// Show the events of a program: fields, types, documentation, where and whether they are on
    #[command(after_long_help = "\
Examples:
  gracepoint list -p 4242
  gracepoint list --name kv 'kv:*' 'http:re*'
  gracepoint list --name kv --json | jq -r .name

A GLOB has * for anything, ? for one character and [a-z] for a set. Exits with 1 when none \
matches.")]
    List(ListArgs),
    /// Show the functions of a program that can be traced, and where they are
    #[command(after_long_help = "\
Examples:
  gracepoint functions -p 4242
  gracepoint functions --name kv 'kv::store::*' '*::flush'
  gracepoint functions --name kv --json | jq -r 'select(.line > 99) | .name'

Those with #[gracepoint::function], and all of a program that was built with `cargo gracepoint build`. A \
GLOB is compared with the path as it is shown, and with the path without what is generic: kv::Store::get \
is <kv::Store>::get::<u8>. Exits with 1 when none matches.")]
    Functions(FunctionsArgs),
    /// Record events of a running program or of a command
    #[command(
        override_usage = "gracepoint record [OPTIONS] <-p PID|--name NAME>
       gracepoint record [OPTIONS] -- CMD [ARGS]",
        after_long_help = "\
Examples:
  gracepoint record -p 4242               until Ctrl-C or the program's end
  gracepoint record --name kv -e 'kv:*' --duration 2s
  gracepoint record -o slow.trace --buffer 64M -- ./kv --port 0
  gracepoint record -p 4242 -o day --rotate 1h --keep 24
  gracepoint record -p 4242 -l 'kv::*' --notrace '*::fmt' --threshold 10us
  gracepoint record --functions all -e 'kv:*' -- ./kv --port 0

A recording ends by Ctrl-C, after --duration, or with the program. A command gets Ctrl-C itself, and \
the recording ends with it; where it does not end, a second Ctrl-C ends the recording alone. It is also waited for \
after --duration. SIGTERM is handed on to it. What does not fit into the \
buffer while the disk is busy is lost, counted and reported. The trace is a directory in CTF 1.8, \
which babeltrace2 and Trace Compass read too."
    )]
    Record(RecordArgs),
    /// Count what a process does
    #[command(after_long_help = "\
Examples:
  gracepoint perf stat -p 4242 -e kv:get,task-clock,page-faults --interval 1s
  gracepoint perf stat -- ./kv --port 0")]
    Perf(PerfArgs),
    /// Become a command when told to go on; `profile` and `perf stat` start commands by this
    #[command(
        hide = true,
        after_long_help = "\
Examples:
  gracepoint launch -- ./kv --port 0   stops itself, and is ./kv at SIGCONT"
    )]
    Launch(LaunchArgs),
    /// Hand on what the kernel tells of a process, until the input ends; `record -k` starts it
    #[command(
        hide = true,
        after_long_help = "\
Examples:
  gracepoint kernel-side -p 4242 372   one of the kernel's tracepoints"
    )]
    KernelSide(KernelSideArgs),
    /// Sample where a process's threads are on their CPUs
    #[command(
        override_usage = "gracepoint profile [OPTIONS] -p PID
       gracepoint profile [OPTIONS] -- CMD [ARGS]",
        after_long_help = "\
Examples:
  gracepoint profile -p 4242 --duration 10s
  gracepoint profile --freq 999 -o hot.trace -- ./kv --port 0
  gracepoint report --profile                  functions, and the time in each
  gracepoint export --profile --to flamegraph

Of any process, with or without tracepoints; `record --profile` samples beside a program's events. The kernel \
takes the samples and follows frame pointers; nothing runs in the process. Build with \
`-C force-frame-pointers=yes` to see who called whom. Ends by Ctrl-C, after --duration, or with the \
process."
    )]
    Profile(ProfileArgs),
    /// Switch events on and leave them on, recording into memory
    #[command(after_long_help = "\
Examples:
  gracepoint start -e all              in every program of yours that runs
  gracepoint start -p 4242 -e 'kv:*' --buffer 64M
  gracepoint start --session slow -e 'db:*' --flight-recorder
  gracepoint start -p function_graph -p 4242 --functions 'kv::*'

-p takes process ids, and the tracers that trace-cmd's -p takes: `function` and `function_graph` (here the \
same: entries and exits) record the functions of --functions, or all; `nop` with -e records events alone, and \
without ends the session as if `start` had never been. The session stays when this command has ended; nobody drains it. When its buffer is full new events \
are lost and counted, or with --flight-recorder the oldest ones. `gracepoint stop` switches it off and \
keeps what it has, `extract` writes that to a trace, `reset` forgets it. It ends with the program.")]
    Start(StartArgs),
    /// Switch off what was started; what is recorded is kept
    #[command(after_long_help = "\
Examples:
  gracepoint stop
  gracepoint stop -p 4242 --session slow
  gracepoint stop --json | jq -r '[.did, .pid, .name] | @tsv'

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

WHEN FULL says whether new events are lost then (discards) or the oldest (overwrites). Exits with 1 when \
there is no session in any program, unless --log had something to tell.")]
    Show(ShowArgs),
    /// Write out what was recorded since `start`, and free it
    #[command(after_long_help = "\
Examples:
  gracepoint extract
  gracepoint extract -p 4242 --session slow -o slow.trace
  gracepoint extract --json | jq -r .dir

One session becomes a trace in DIR; of several, each becomes one in a directory DIR/NAME-PID-SESSION. \
When a trace cannot be written, the session stays as it is. Exits with 1 when there is no session.")]
    Extract(ExtractArgs),
    /// Write out what the buffers hold while recording goes on
    #[command(after_long_help = "\
Examples:
  gracepoint snapshot -p 4242 -o now.trace
  gracepoint snapshot --session flight

Takes nothing away and disturbs nobody: of a session from `start` or of one that `record` is writing, \
the events that are in memory now. Exits with 1 when there is no session.")]
    Snapshot(ExtractArgs),
    /// Switch everything off and free it, whoever left it on
    #[command(after_long_help = "\
Examples:
  gracepoint reset
  gracepoint reset -p 4242
  gracepoint reset --json | jq .sessions

Ends all sessions of the programs, those of other users of this command too: a `gracepoint record` \
that is under way finishes its trace with what it has.")]
    Reset(ResetArgs),
    /// Show how often events happen, without recording them
    #[command(after_long_help = "\
Examples:
  gracepoint stat --interval 1s
  gracepoint stat -p 4242 -e 'kv:*' --duration 10s
  gracepoint stat --interval 500ms --json | jq 'select(.rate > 1000)'

Counts in the programs themselves, a few nanoseconds for each hit, whatever else is on; nothing is \
lost. Of a span its begins are counted. Ends by Ctrl-C, after --duration, with the programs, or when \
somebody resets them. A program that ends takes with it what it counted since it was last shown: without \
--interval that is all, and an error (2).")]
    Stat(StatArgs),
    /// Show events of a running program as they happen
    #[command(after_long_help = "\
Examples:
  gracepoint stream -p 4242
  gracepoint stream --name kv -e 'http:*' --json | jq .fields
  gracepoint stream -p 4242 -e 'db:*' --context thread,stack --max-rate 10

In order of time, within a tenth of a second; beside whatever else records. What cannot be shown fast \
enough is lost and counted (gp:loss). Ends by Ctrl-C, after --duration or --limit, with the program, or \
when somebody resets it.")]
    Stream(StreamArgs),
    /// Turn what a flight recorder left, or holds, into a trace
    #[command(after_long_help = "\
Examples:
  GRACEPOINT_FLIGHT=/dev/shm/kv ./kv              records into memory always
  gracepoint recover /dev/shm/kv -o crash.trace   when it was killed, or runs
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
  gracepoint report --functions --sort self
  gracepoint report '--functions=kv::store::*' --json

A TIME is 2026-01-02T03:04:05.678 or 2026-01-02, 03:04:05.678 (on the day of the trace) or \
@1767323045.678, all UTC; or +1.5s after the first event; or -200ms before the trace's end. What is \
chosen must meet all conditions; --last counts what meets the others. A trace that is damaged or not \
whole is read as far as it goes, and what is missing is said; with --strict that is an error at the \
end (2).")]
    Report(ReportArgs),
    /// Show who called whom: the calls of functions, indented, with their durations
    #[command(after_long_help = "\
Examples:
  gracepoint record -p 4242 --functions all -d 1s && gracepoint graph | less
  gracepoint graph slow.trace --functions kv::Store::get --depth 3
  gracepoint graph --thread 'worker-*' --since -10ms -e 'kv:*'
  gracepoint graph --json | jq 'select(.duration_ns > 1000000)'

As the kernel's function_graph: marks stand before durations of more than 10 us (+), 100 us (!), 1 ms (#), \
10 ms (*), 100 ms (@) and 1 s ($). Events stand as comments between the calls. A line is written when it \
is known, so lines of several threads are mixed: choose one with --thread. A call without an exit was \
unwound by a panic, or its exit is not in the trace. Conditions are those of `gracepoint report`.")]
    Graph(GraphArgs),
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
    /// Say where the time of slow spans went: running, runnable, blocked in which system call
    #[command(after_long_help = "\
Examples:
  gracepoint record -p 4242 -k 'syscalls:*,sched:sched_waking' --duration 5s
  gracepoint slow --event http:request --over 10ms

Of each, and of all together; with sched:sched_waking also which of the program's spans woke it. Exits with 1 \
when none is that slow.")]
    Slow(SlowArgs),
    /// Write a trace for other viewers: Perfetto, Chrome, flame graphs
    #[command(after_long_help = "\
Examples:
  gracepoint export --to perfetto           for https://ui.perfetto.dev
  gracepoint export slow.trace --to flamegraph -o slow.svg
  gracepoint export --to chrome --since -10s --counter kv:get.took -o last.json
  gracepoint export --to folded -o - | inferno-flamegraph > spans.svg

Spans are slices: on their thread where they nest, else (ended on another thread, or held across an \
await) on tracks of their own. Other events are instants with their fields, and losses have a track. \
folded and flamegraph tell the microseconds spent in each stack of spans. Conditions are those of \
`gracepoint report`. The file is there when it is whole, or not at all.")]
    Export(ExportArgs),
    /// Tell how switching tracing off went wrong in the kernel, and why it does not here
    #[command(after_long_help = "\
Examples:
  gracepoint scenario teardown-stall
  gracepoint scenario stale-data --json

For each: what the kernel does, the schedule on which it fails as a model checker found it, ours on the same \
schedule, and the kernel of this machine, measured where it lets us.")]
    Scenario(ScenarioArgs),
    /// Write a page with a timeline of threads, spans and events to look at
    #[command(after_long_help = "\
Examples:
  gracepoint view --open                    look at gracepoint.trace now
  gracepoint view slow.trace -o slow.html   a file to keep or to pass on
  gracepoint view --since -2s --thread 'worker-*' --force

The page is one file that loads nothing: no network, no server. It zooms by the wheel or W and S, moves by \
dragging or A and D, searches names and fields, and shows the fields of what is clicked. Its address says \
what is shown. Conditions are those of `gracepoint report`. A page holds at most 8 million events.")]
    View(ViewArgs),
    /// Say why a Linux kernel is stuck, from the text of its log
    #[command(after_long_help = "\
Examples:
  dmesg | gracepoint explain -
  journalctl -k -b -1 -o short-monotonic | gracepoint explain - --json
  gracepoint explain console.log --html > why.html
  gracepoint explain console.log --format report --vmlinux boot/vmlinux

Hung tasks, RCU and SRCU stalls, lockups, lists of blocked tasks and of held locks become chains of \
who waits for whom, each hop with its lines and how sure it is. A chain ends at a culprit, at a \
cycle, or where the log says no more; then it is said what to collect. Exits with 0 when there is a \
culprit or a cycle, with 1 when the log does not say.")]
    Explain(ExplainArgs),
    /// Say why a program is stuck: who waits, for which grace period, and who holds it up
    #[command(
        override_usage = "gracepoint why [OPTIONS] <-p PID|--name NAME|--core FILE>",
        after_long_help = "\
Examples:
  gracepoint why -p 4242
  gracepoint why --name kv --watch --older-than 1s
  gracepoint why -p 4242 --html > why.html
  gracepoint why --core core.4242

Each hop says what shows it and how sure it is. A program whose agent does not answer, because it is \
stopped or its thread is stuck, is read from outside, which takes the rights of a debugger. Stacks \
are those of threads that sleep. Exits with 0 when there is a culprit or a cycle, with 1 when nothing \
is stuck or nobody can say."
    )]
    Why(WhyArgs),
}

/// A pattern of names; `all` is `*`.
fn parse_glob(text: &str) -> Result<String, String> {
    Ok(if text == "all" { "*".to_owned() } else { text.to_owned() })
}

/// The name of one event.
fn parse_one(text: &str) -> Result<String, String> {
    match text {
        "all" => {
            Err("this is about one event: give its name (`gracepoint info` shows which there are)"
                .into())
        }
        name => Ok(name.to_owned()),
    }
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

    /// Paragraphs have no hard line breaks, or they would be broken twice; lines that are meant to stand fit
    /// on 80 columns.
    #[test]
    fn help_reads_well_whatever_the_width() {
        let mut cli = Cli::command();
        cli.build();
        let mut all = vec![cli.clone()];
        while let Some(command) = all.pop() {
            all.extend(command.get_subcommands().cloned());
            let name = command.get_name();
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = help.lines().collect();
            for pair in lines.windows(2) {
                let goes_on = !pair[0].is_empty() && !pair[0].ends_with(':');
                let is_text = |line: &str| !line.is_empty() && !line.starts_with(' ');
                assert!(!(goes_on && is_text(pair[1])), "{name}: {pair:?} are one paragraph");
            }
            for line in lines.iter().filter(|line| line.starts_with(' ')) {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
            for width in [80, 120] {
                let text = command.clone().term_width(width).render_long_help().to_string();
                let wide = text.lines().find(|line| line.chars().count() > width);
                assert_eq!(wide.filter(|line| !line.contains("Usage:")), None, "{name}");
                // Examples stand as they are.
                for line in lines.iter().filter(|line| line.starts_with("  ")) {
                    assert!(text.lines().any(|told| told == *line), "{name}: {line} is broken");
                }
            }
        }
    }

    #[test]
    fn start_takes_pids_and_tracers() {
        let parse = |line: &str| match Cli::try_parse_from(line.split(' ')).map(|cli| cli.command) {
            Ok(Command::Start(args)) => Ok(args),
            other => Err(other.map(|_| ()).unwrap_err().to_string()),
        };
        let wanted = |line: &str| parse(line).unwrap().wanted();
        let all = vec!["*".to_owned()];
        assert_eq!(wanted("gracepoint start").unwrap().0, all);
        let (events, functions) =
            wanted("gracepoint start -p function_graph -p 7 --depth 3").unwrap();
        assert_eq!((events, functions.functions), (vec![], all.clone()));
        let (events, functions) = wanted("gracepoint start --plugin function -l a -e b").unwrap();
        assert_eq!((events, functions.functions), (vec!["b".into()], vec!["a".into()]));
        assert_eq!(wanted("gracepoint start -p nop -e x").unwrap().0, ["x"]);
        assert!(parse("gracepoint start -p nop").unwrap().is_nothing());
        assert!(!parse("gracepoint start -p nop -e all").unwrap().is_nothing());
        assert!(wanted("gracepoint start -p nop --functions x").is_err());
        assert!(wanted("gracepoint start --depth 3").unwrap_err().starts_with("--depth is about"));
        let error = parse("gracepoint start -p functions").unwrap_err();
        assert!(error.contains("neither a process id nor a tracer"), "{error}");
        assert!(parse("gracepoint start -p 0").is_err());
    }

    /// Whatever takes patterns takes `all`; what takes one event says that it does.
    #[test]
    fn all_is_every_event() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        let all = vec!["*".to_owned()];
        match parse("gracepoint report -e all --functions=all") {
            Ok(Command::Report(args)) => {
                assert_eq!(
                    (args.choose.filter().events, args.functions),
                    (all.clone(), Some("*".into()))
                );
            }
            other => panic!("{other:?}"),
        }
        for line in ["info -e all", "export --to chrome -e all", "graph -e all", "view -e all"] {
            let choose = match parse(&format!("gracepoint {line}")) {
                Ok(Command::Info(args)) => args.choose,
                Ok(Command::Export(args)) => args.choose,
                Ok(Command::Graph(args)) => args.choose,
                Ok(Command::View(args)) => args.choose,
                other => panic!("{other:?}"),
            };
            assert_eq!(choose.filter().events, all, "{line}");
        }
        let Ok(Command::List(args)) = parse("gracepoint list -p 1 all") else { panic!() };
        assert_eq!(args.globs, all);
        for line in ["hist -e all -f x", "slow -e all"] {
            let error = parse(&format!("gracepoint {line}")).unwrap_err().to_string();
            assert!(error.contains("about one event"), "{error}");
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

    /// But for the two that only our own commands start.
    #[test]
    fn every_command_takes_json() {
        let cli = Cli::command();
        let all = cli.get_subcommands().flat_map(|command| {
            let mut own: Vec<_> = command.get_subcommands().collect();
            if own.is_empty() {
                own.push(command);
            }
            own
        });
        for command in all.filter(|command| !command.is_hide_set()) {
            let json = command.get_arguments().any(|arg| arg.get_id() == "json");
            assert!(json, "{}", command.get_name());
        }
    }
}
