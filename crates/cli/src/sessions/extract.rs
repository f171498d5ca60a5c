//! `gracepoint extract` and `gracepoint snapshot`: what sessions hold in memory, as traces.

use super::{chosen, did, each, kept, title};
use crate::args::ExtractArgs;
use crate::console::Console;
use crate::discover::{self, Live, Which};
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::{Interrupts, STATUS};
use crate::quantity;
use crate::record::report_argument;
use crate::record::session::{Ended, Recorded, Session};
use gracepoint_wire::control::SessionInfo;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Runs `extract`.
pub(crate) fn extract(args: &ExtractArgs, console: &mut Console) -> Result<u8> {
    write_out(kept(&args.which, console)?, false, args, console)
}

/// Runs `snapshot`.
pub(crate) fn snapshot(args: &ExtractArgs, console: &mut Console) -> Result<u8> {
    write_out(chosen(&args.which, console, |session| !session.counts)?, true, args, console)
}

/// Writes each of the sessions to a trace: the only one to the directory itself.
fn write_out(
    sessions: Vec<(Live, Vec<SessionInfo>)>,
    look: bool,
    args: &ExtractArgs,
    console: &mut Console,
) -> Result<u8> {
    let alone = sessions.iter().map(|(_, theirs)| theirs.len()).sum::<usize>() == 1;
    if !alone {
        make(&args.output)?;
    }
    // A trace that is begun is ended, unless Ctrl-C comes twice.
    let mut interrupts = Interrupts::catch(true)?;
    let (programs, theirs): (Vec<Live>, Vec<_>) = sessions.into_iter().unzip();
    let mut theirs = theirs.into_iter();
    each(programs, console, |live, console| {
        let pid = live.pid;
        let mut live = Some(live);
        for session in theirs.next().unwrap_or_default() {
            if interrupts.take().is_some() {
                return Err(Failure::new("interrupted: what is not written out is still there")
                    .with_status(STATUS));
            }
            let live = match live.take() {
                Some(live) => live,
                // Each trace takes a connection with it.
                None => discover::find(&Which::Pid(pid))?,
            };
            let dir = match alone {
                true => args.output.clone(),
                false => args.output.join(directory(&live, &session)),
            };
            write_one(live, &session, look, &dir, args, console)?;
        }
        Ok(())
    })
}

fn make(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(dir);
    made.map_err(|e| {
        let named = dir.to_string_lossy();
        Failure::new(format!("cannot make the directory {}: {e}", shown(&named)))
    })
}

/// `kv-4242-main`, without what a file's name cannot hold.
fn directory(live: &Live, session: &SessionInfo) -> PathBuf {
    let id = session.session.to_string();
    let name = if session.name.is_empty() { &id } else { &session.name };
    let name = format!("{}-{}-{name}", live.program.name, live.pid);
    let plain = |c: char| if c.is_alphanumeric() || "._-+@".contains(c) { c } else { '_' };
    PathBuf::from(name.trim_start_matches('.').chars().map(plain).collect::<String>())
}

fn write_one(
    live: Live,
    session: &SessionInfo,
    look: bool,
    dir: &Path,
    args: &ExtractArgs,
    console: &mut Console,
) -> Result<()> {
    let who = title(&live);
    let (pid, program) = (live.pid, live.program.name.clone());
    let recording = Session::attach(live, session.session, look, dir, args.force)?;
    for note in &recording.notes {
        console.note(shown(note));
    }
    let path = recording.dir.path.clone();
    let ended = if look { Ended::Snapshot } else { Ended::Extracted };
    let recorded = recording.finish(ended, console);
    let events = conclude(&recorded, session, &who, &path, dir, console)?;
    if args.which.json {
        let more = json!({
            "dir": dir.to_string_lossy(),
            "events": events,
            "bytes": recorded.bytes,
            "lost": recorded.lost,
            "complete": !recorded.unconfirmed,
            "holdouts": recorded.holdouts,
        });
        let verb = if look { "snapshot" } else { "extract" };
        let session = (session.session, session.name.as_str());
        console.line(did(verb, pid, &program, session, more))?;
    }
    Ok(())
}

/// Says what was written out; returns how many events it has.
fn conclude(
    recorded: &Recorded,
    session: &SessionInfo,
    who: &str,
    path: &Path,
    dir: &Path,
    console: &mut Console,
) -> Result<u64> {
    let name = if session.name.is_empty() { "the session" } else { &session.name };
    let shown_dir = shown(&dir.to_string_lossy()).into_owned();
    if let Some(why) = &recorded.failure {
        return Err(Failure::new(format!(
            "{shown_dir} is not whole: {}; {} of {who} keeps what it has: make room, and write it out \
             again, elsewhere with -o or there with --force",
            shown(why),
            shown(name),
        )));
    }
    if recorded.unconfirmed {
        console.note(format_args!(
            "{who} did not answer when told to stop (is it stopped itself?): the trace holds what it had \
             written by then"
        ));
    }
    for holdout in recorded.holdouts.iter().take(10) {
        console
            .note(format_args!("{}; what it may be writing is not in the trace", shown(holdout)));
    }
    let info = gracepoint_analysis::Trace::open(path)
        .and_then(|trace| gracepoint_analysis::info::info(&trace))?;
    console.words(format_args!(
        "{} of {who}: {} ({}, {} lost) to {shown_dir}",
        shown(name),
        quantity::plural(info.events, "event", "events"),
        quantity::bytes(recorded.bytes),
        quantity::count(recorded.lost),
    ));
    console.words(format_args!("see: gracepoint report{}", report_argument(dir)));
    Ok(info.events)
}
