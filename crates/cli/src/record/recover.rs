//! `gracepoint recover`: what a flight recorder's file holds, as a trace. The program may be gone,
//! however it ended, or still be writing; nothing in its files need be true.

use super::arena::Arena;
use super::copy::Copier;
use super::own::Own;
use super::snapshot;
use super::streams::Streams;
use super::trace_dir::{self, Description, TraceDir};
use crate::args::RecoverArgs;
use crate::console::Console;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::quantity;
use gracepoint_analysis::Trace;
use gracepoint_analysis::sidecar::{ProgramEntry, Sidecar};
use gracepoint_wire::clock::{Clock, Triple};
use gracepoint_wire::flight::{ABOUT_SUFFIX, ARENA_SUFFIX, About, MOST_ABOUT};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The word in the sidecar.
const ENDED: &str = "recovered";

/// What was found in one recorder.
struct Recovered {
    about: About,
    dir: PathBuf,
    bytes: u64,
    /// Events that had to make room for later ones, or found no page.
    lost: u64,
    /// How many of them had to make room.
    overwritten: u64,
    /// Pages that were written over while they were copied.
    rejected: u64,
    /// Pages in which not everything was a packet.
    spoilt: u64,
}

/// Runs the command; returns its exit status.
pub(crate) fn run(args: &RecoverArgs, console: &mut Console) -> Result<u8> {
    let found = recorders(&args.from)?;
    match found.as_slice() {
        [one] => recover(one, &args.output, args, console)?,
        several => {
            // Each in a directory of its own, so that each is a trace.
            std::fs::create_dir_all(&args.output).map_err(|e| cannot("make", &args.output, &e))?;
            for name in several {
                let leaf = name.file_name().unwrap_or_default();
                recover(name, &args.output.join(leaf), args, console)?;
            }
        }
    }
    Ok(0)
}

fn cannot(verb: &str, path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("cannot {verb} {}: {why}", shown(&path.to_string_lossy())))
}

/// The recorders at `from`, a directory or one of a recorder's files, as paths without suffix.
fn recorders(from: &Path) -> Result<Vec<PathBuf>> {
    let stem = |path: &Path| {
        let text = path.to_str()?;
        text.strip_suffix(ARENA_SUFFIX).or_else(|| text.strip_suffix(ABOUT_SUFFIX)).map(Into::into)
    };
    if let Some(one) = stem(from) {
        return Ok(vec![one]);
    }
    let entries = std::fs::read_dir(from).map_err(|e| cannot("read", from, &e))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(ARENA_SUFFIX))
        .filter_map(|path| stem(&path))
        .collect();
    found.sort();
    if found.is_empty() {
        return Err(Failure::new(format!(
            "{} holds no flight recorder: was the program started with GRACEPOINT_FLIGHT set to it, \
             and did it call gracepoint::init()?",
            shown(&from.to_string_lossy())
        )));
    }
    Ok(found)
}

fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn recover(stem: &Path, out: &Path, args: &RecoverArgs, console: &mut Console) -> Result<()> {
    trace_dir::check(out, args.force)?;
    let recovered = copy(stem, out, args.force)?;
    conclude(&recovered, out, args, console)
}

fn read_about(stem: &Path) -> Result<About> {
    let path = with_suffix(stem, ABOUT_SUFFIX);
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(|e| cannot("open", &path, &e))?;
    file.take(MOST_ABOUT).read_to_end(&mut bytes).map_err(|e| cannot("read", &path, &e))?;
    About::parse(&bytes).map_err(|e| cannot("use", &path, &e))
}

fn copy(stem: &Path, out: &Path, force: bool) -> Result<Recovered> {
    let mut about = read_about(stem)?;
    let path = with_suffix(stem, ARENA_SUFFIX);
    let file = File::open(&path).map_err(|e| cannot("open", &path, &e))?;
    let arena = Arena::with_header(file, about.arena).map_err(|e| cannot("use", &path, &e))?;
    about.created.events.extend(arena.late_events().map_err(|e| cannot("read", &path, &e))?);
    let mut clock = about.created.clock.clone();
    clock.triples.extend(arena.triple().filter(|triple| agrees(&clock, triple)));
    clock.refine();
    let dir = TraceDir::create(out, force)?;
    let mut copier = Copier::new(arena, Streams::new(&dir.path));
    copier.since = clock.triples.first().map_or(0, |triple| triple.ticks);
    let now = clock.triples.last().map_or(0, |triple| triple.ticks);
    copier.context = about.created.context;
    copier.own = Own::of(&about.created.events, about.created.modules.clone());
    let copied = copier.write_modules().and_then(|()| snapshot::copy(&mut copier, now));
    let missed = copied.map_err(|e| cannot("copy", &path, &e))?;
    let program = &about.program;
    let entry = ProgramEntry {
        name: program.name.clone(),
        pid: program.pid,
        exe: program.exe.clone(),
        args: Vec::new(),
        frame_pointers: program.frame_pointers,
    };
    let mut sidecar = Sidecar::new(entry, &clock, &about.created.events);
    sidecar.complete = missed.rejected == 0 && copier.spoilt == 0;
    sidecar.ended = ENDED.into();
    sidecar.streams = copier.streams.lengths().iter().map(|(&n, &len)| (n, len)).collect();
    sidecar.lost = missed.lost.clone();
    dir.describe(&Description {
        program,
        clock: &clock,
        events: &about.created.events,
        context: about.created.context,
        sidecar: &sidecar,
    })?;
    Ok(Recovered {
        dir: dir.path.clone(),
        bytes: copier.streams.bytes,
        lost: missed.lost.values().fold(0, |sum, &lost| sum.saturating_add(lost)),
        overwritten: missed.overwritten,
        rejected: missed.rejected,
        spoilt: copier.spoilt,
        about,
    })
}

/// Can this be a later moment of the clock? What lies in the arena may have been scribbled on, and
/// what `Created` tells has not.
fn agrees(clock: &Clock, later: &Triple) -> bool {
    let Some(last) = clock.triples.last() else { return false };
    let (Some(ticks), Some(ns)) =
        (later.ticks.checked_sub(last.ticks), later.mono_ns.checked_sub(last.mono_ns))
    else {
        return false;
    };
    let wanted = u128::from(ns) * u128::from(clock.freq_hz) / 1_000_000_000;
    // The first frequency was measured over a few milliseconds.
    ns > 0 && u128::from(ticks).abs_diff(wanted) <= wanted / 50 + 1_000_000
}

fn conclude(
    recovered: &Recovered,
    out: &Path,
    args: &RecoverArgs,
    console: &mut Console,
) -> Result<()> {
    let Recovered { about, dir, bytes, lost, overwritten, rejected, spoilt } = recovered;
    if *rejected > 0 {
        console.note(format_args!(
            "{} went while being copied: the program is recording",
            quantity::plural(*rejected, "page", "pages")
        ));
    }
    if *spoilt > 0 {
        console.note(format_args!(
            "{} held something else than packets, which was left out",
            quantity::plural(*spoilt, "page", "pages")
        ));
    }
    let info = Trace::open(dir).and_then(|trace| gracepoint_analysis::info::info(&trace));
    let events = info.ok().map(|info| info.events);
    if args.json {
        console.line(json!({
            "dir": dir.to_string_lossy(),
            "program": about.program.name,
            "pid": about.program.pid,
            "events": events,
            "bytes": bytes,
            "lost": lost,
            "overwritten": overwritten,
            "rejected": rejected,
            "spoilt": spoilt,
        }))?;
    }
    let what = events.map_or("events".into(), |n| quantity::plural(n, "event", "events"));
    console.words(format_args!(
        "recovered {what} of {} (pid {}; {}, {}) to {}",
        shown(&about.program.name),
        about.program.pid,
        quantity::bytes(*bytes),
        losses(*lost, *overwritten),
        shown(&out.to_string_lossy()),
    ));
    Ok(())
}

/// What is not there, and why: the older ones made room, or there was none for new ones.
fn losses(lost: u64, overwritten: u64) -> String {
    let (older, newer) = (overwritten.min(lost), lost.saturating_sub(overwritten));
    let count = quantity::count;
    match (older, newer) {
        (0, 0) => "0 lost".to_owned(),
        (older, 0) => format!("{} older ones lost", count(older)),
        (0, newer) => format!("{} lost for which there was no room", count(newer)),
        _ => format!(
            "{} older ones lost, and {} for which there was no room",
            count(older),
            count(newer)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_by_their_kind() {
        let told = [(0, 0), (5, 5), (5, 0), (5, 3), (3, 5)].map(|(lost, over)| losses(lost, over));
        let wanted = [
            "0 lost",
            "5 older ones lost",
            "5 lost for which there was no room",
            "3 older ones lost, and 2 for which there was no room",
            "3 older ones lost",
        ];
        assert_eq!(told, wanted);
    }
}
