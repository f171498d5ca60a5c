//! `gracepoint record`: events of a running program, or of a command, into a trace.

pub(crate) mod arena;
pub(crate) mod copy;
pub(crate) mod launch;
pub(crate) mod own;
pub(crate) mod recover;
pub(crate) mod residue;
pub(crate) mod session;
mod snapshot;
pub(crate) mod stream;
pub(crate) mod streams;
pub(crate) mod trace_dir;

use crate::args::RecordArgs;
use crate::console::Console;
use crate::discover;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::{Interrupts, STATUS};
use crate::perf::sides::Asked;
use crate::quantity;
use crate::sessions::what_is_on;
use gracepoint_analysis::Trace;
use gracepoint_wire::control::{Limits, Mode};
use gracepoint_wire::schema::{Context, Declared, FIRST_USER_ID};
use launch::Launched;
use serde_json::json;
use session::{Ended, Pieces, Plan, Recorded, Session, Until};
use std::path::{Path, PathBuf};

/// Where a trace goes, and where one is looked for, unless told otherwise.
pub(crate) const DEFAULT_DIR: &str = "gracepoint.trace";
/// Exit status for our own failure where the command's status would be expected.
const OWN_FAILURE: u8 = 125;

/// Runs the command; returns its exit status.
pub(crate) fn run(args: &RecordArgs, console: &mut Console) -> Result<u8> {
    if let Some(idle) = args.functions.idle().filter(|_| !args.functions.is_any()) {
        return Err(Failure::new(format!(
            "{idle} is about functions: say which with --functions GLOB"
        )));
    }
    if args.command.is_empty() {
        record_running(args, console)
    } else {
        record_command(args, console)
    }
}

fn plan<'a>(args: &'a RecordArgs, globs: &'a [String], dir: &'a Path) -> Plan<'a> {
    Plan {
        globs,
        functions: &args.functions,
        buffer_bytes: args.buffer.unwrap_or(0),
        mode: if args.flight_recorder { Mode::Overwrite } else { Mode::Discard },
        context: args.context.iter().fold(Context::default(), |all, one| all.with(*one)),
        limits: Limits {
            max_rate: args.max_rate.unwrap_or(0),
            sample: args.sample.unwrap_or(0),
            max_overhead_ppm: args.max_overhead.unwrap_or(0),
        },
        level: args.level,
        dir,
        force: args.force,
        sides: Asked {
            profile: args.profile.then(|| args.rate.rate()),
            in_program: args.in_program,
            kernel: &args.kernel,
        },
    }
}

/// The directory that is recorded to, the first of several if the recording is one in pieces.
fn place(args: &RecordArgs) -> Result<(Option<Pieces>, PathBuf)> {
    let Some(rotate) = args.rotate else {
        trace_dir::check(&args.output, args.force)?;
        return Ok((None, args.output.clone()));
    };
    let keep = args.keep.map(|keep| keep as usize);
    let (pieces, first) = Pieces::new(&args.output, args.force, rotate, keep)?;
    Ok((Some(pieces), first))
}

fn record_running(args: &RecordArgs, console: &mut Console) -> Result<u8> {
    if args.rotate.is_none() {
        trace_dir::check(&args.output, args.force)?;
    }
    let mut interrupts = Interrupts::catch(true)?;
    let live = discover::find(&args.target.which())?;
    let (pieces, dir) = place(args)?;
    let mut session = Session::begin(live, &plan(args, &args.globs(), &dir))?;
    session.pieces = pieces.map(Pieces::begun);
    if interrupts.take().is_some() {
        session.discard();
        return Ok(STATUS);
    }
    announce(&session, args, console);
    let mut until = Until {
        duration: args.duration,
        interrupts: &mut interrupts,
        command: None,
        progress: !args.quiet,
    };
    let ended = session.run(&mut until, console);
    let dir = session.dir.path.clone();
    let recorded = session.finish(ended, console);
    conclude(&recorded, &dir, args, console)?;
    Ok(0)
}

fn record_command(args: &RecordArgs, console: &mut Console) -> Result<u8> {
    let ours = |failure: Failure| failure.with_status(OWN_FAILURE);
    let (pieces, dir) = place(args).map_err(ours)?;
    let mut interrupts = Interrupts::catch(false).map_err(ours)?;
    let mut command = Launched::spawn(&args.command)?;
    let Some(live) = command.wait_for_program(&mut interrupts, console) else {
        let what = if command.has_ended() { "ended and" } else { "goes on, and" };
        console.note(format_args!(
            "{} {what} nothing was recorded: it did not become traceable, or not for long enough \
             (call gracepoint::init() in it, and see that GRACEPOINT=off is not set)",
            command.name()
        ));
        // A command that failed says so itself.
        return Ok(match command.has_ended() {
            true if command.exit_status() == 0 => OWN_FAILURE,
            true => command.exit_status(),
            false => STATUS,
        });
    };
    let late = !live.program.waiting;
    let mut session = match Session::begin(live, &plan(args, &args.globs(), &dir)) {
        Ok(session) => session,
        Err(failure) => {
            // It waits in init(), or has barely begun: better ended than run without a trace.
            command.terminate();
            command.wait(&mut interrupts, console);
            return Err(ours(failure));
        }
    };
    session.late = late;
    session.pieces = pieces.map(Pieces::begun);
    announce(&session, args, console);
    if late {
        console.note(
            "the program did not wait for the recorder, which came late: its first events are not in \
             the trace",
        );
    }
    let mut until = Until {
        duration: args.duration,
        interrupts: &mut interrupts,
        command: Some(&mut command),
        progress: false,
    };
    let mut ended = session.run(&mut until, console);
    let (dir, pid) = (session.dir.path.clone(), session.pid);
    // Once its socket is closed the program's status is a matter of moments.
    if matches!(ended, Ended::ProgramExit) && pid == command.pid() {
        command.wait(&mut interrupts, console);
        if command.was_killed() {
            ended = Ended::ProgramKilled;
        }
    }
    let recorded = session.finish(ended, console);
    let status = command.wait(&mut interrupts, console);
    conclude(&recorded, &dir, args, console).map_err(ours)?;
    Ok(status)
}

fn announce(session: &Session, args: &RecordArgs, console: &mut Console) {
    if let Some(note) = &session.sides.note {
        console.note(shown(note));
    }
    if let Some(why) = &session.sides.without_kernel {
        console.note(format_args!("{}; the program's own are", shown(why)));
    }
    if args.quiet {
        return;
    }
    for note in &session.notes {
        console.note(shown(note));
    }
    console.note(format_args!(
        "recording {} of {} (pid {}) to {}{}",
        what_is_on(&session.events, session.functions()),
        shown(&session.program.name),
        session.pid,
        shown(&args.output.to_string_lossy()),
        if args.command.is_empty() { "; Ctrl-C ends it" } else { "" },
    ));
    // The program lets that pass because it declares events as it comes to them.
    let own = |event: &Declared| event.role.is_first() && event.id >= FIRST_USER_ID;
    if !args.events.is_empty() && !session.events.iter().any(own) && session.functions() == 0 {
        console.note(
            "nothing that it has hit so far matches; what it hits for the first time from now on is recorded if it does",
        );
    }
}

/// Says what of the events is not in the trace, as far as it is no loss.
fn tell_gaps(recorded: &Recorded, console: &mut Console) {
    for who in recorded.holdouts.iter().take(10) {
        console.note(format_args!("{}; what it may be writing is not in the trace", shown(who)));
    }
    if recorded.spoilt > 0 {
        console.note(format_args!(
            "{} of the program's buffer held something else than packets, which was left out",
            quantity::plural(recorded.spoilt, "page", "pages")
        ));
    }
    if recorded.refused > 0 {
        console.note(format_args!(
            "{} that came during the recording had no room in it; record again, now that they are known",
            quantity::plural(recorded.refused, "kind of event", "kinds of event")
        ));
    }
}

/// What others did, or still do.
fn tell_of_others(recorded: &Recorded, args: &RecordArgs, console: &mut Console) {
    if let Ended::Reset(by, _) = &recorded.ended {
        console.note(format_args!("the recording was ended by {}: gracepoint reset", shown(by)));
    }
    if let Some(pid) = recorded.taking_down.filter(|_| !args.quiet) {
        console.note(format_args!(
            "process {pid} goes on to give the kernel's tracepoints back, which takes the kernel its time"
        ));
    }
}

/// Says what was recorded, or why not all of it.
fn conclude(
    recorded: &Recorded,
    dir: &Path,
    args: &RecordArgs,
    console: &mut Console,
) -> Result<()> {
    tell_of_others(recorded, args, console);
    if recorded.unconfirmed {
        console.note(
            "the program did not answer when told to stop (is it stopped itself?): the trace holds \
             what it had written by then",
        );
    }
    tell_gaps(recorded, console);
    let gone = !dir.exists();
    let advice =
        if gone { "record elsewhere with -o" } else { "make room or record elsewhere with -o" };
    let why = match (&recorded.ended, &recorded.failure) {
        (Ended::Failed(why), _) | (_, Some(why)) => {
            Some(format!("the trace is not whole: {why}; {advice}, and record again"))
        }
        (Ended::ConnectionLost(why), None) => Some(format!("connection lost: {why}")),
        _ => None,
    };
    let info = Trace::open(dir).and_then(|trace| gracepoint_analysis::info::info(&trace));
    let events = info.as_ref().ok().map(|info| info.events);
    let what = match (events, recorded.pieces) {
        (_, Some(pieces)) => quantity::plural(pieces, "piece", "pieces"),
        (Some(events), None) => quantity::plural(events, "event", "events"),
        (None, None) => "events".to_owned(),
    };
    let shown_dir = shown(&args.output.to_string_lossy()).into_owned();
    let summary = format!(
        "{what} ({}, {} lost) in {} to {shown_dir}",
        quantity::bytes(recorded.bytes),
        quantity::count(recorded.lost),
        quantity::length(recorded.length),
    );
    if args.json {
        console.line(json!({
            "dir": dir.to_string_lossy(),
            "ended": recorded.ended.word(),
            "events": events,
            "pieces": recorded.pieces,
            "bytes": recorded.bytes,
            "lost": recorded.lost,
            "seconds": recorded.length.as_secs_f64(),
            "holdouts": recorded.holdouts,
        }))?;
    }
    if let Some(why) = why {
        let kept = if gone { "kept nothing".to_owned() } else { format!("kept {summary}") };
        return Err(Failure::new(format!("{}; {kept}", shown(&why))));
    }
    if !args.quiet {
        console.words(format_args!("recorded {summary}"));
        let shown = if recorded.pieces.is_some() { dir } else { &args.output };
        console.words(format_args!("see: gracepoint report{}", report_argument(shown)));
    }
    Ok(())
}

/// What follows `gracepoint report`; nothing for the directory that it reads anyway.
pub(crate) fn report_argument(dir: &Path) -> String {
    if dir == Path::new(DEFAULT_DIR) {
        return String::new();
    }
    let text = dir.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if text.chars().all(plain) {
        format!(" {text}")
    } else {
        format!(" '{}'", shown(&text).replace('\'', r"'\''"))
    }
}
