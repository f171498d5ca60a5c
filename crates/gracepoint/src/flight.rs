//! The flight recorder of `GRACEPOINT_FLIGHT`: a session in overwrite mode that begins in `init` and
//! whose arena is a file, so that what was recorded outlives the program, however it ends.
//!
//! The files stay when the program ends, also by a panic or by `exit`: nobody can tell from inside
//! whether an end was a good one. So that they do not fill the disk, a program that starts removes
//! all but the newest [`KEPT`] of those whose programs are gone. A living one holds a lock on its
//! arena (released by the kernel with its last descriptor), whatever pid namespace it is in.

use crate::error::{Error, ErrorKind};
use crate::session::Session;
use crate::{clock, sys};
use gracepoint_wire::clock::Triple;
use gracepoint_wire::control::{Create, Mode, Program};
use gracepoint_wire::flight::{ABOUT_SUFFIX, ARENA_SUFFIX, About};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Flight recorders of ended programs that are kept in a directory.
const KEPT: usize = 8;
/// How many programs may share one pid in one directory (in pid namespaces of their own, or one
/// after the other).
const MOST_NAMESAKES: u32 = 64;
/// Shortest time between the two triples by which a reader measures the clock.
const BASELINE: std::time::Duration = std::time::Duration::from_millis(10);

/// What the environment asks for.
pub(crate) struct Wanted {
    pub(crate) directory: PathBuf,
    /// `GRACEPOINT_FLIGHT_EVENTS`: patterns, with commas between.
    pub(crate) events: String,
    /// `GRACEPOINT_FLIGHT_SIZE`: `16M`.
    pub(crate) size: String,
    pub(crate) most_bytes: u64,
}

/// A flight recorder under way; ends when it is dropped with its session in it.
pub(crate) struct Flight {
    pub(crate) session: Option<Arc<Session>>,
    /// Holds the lock.
    pub(crate) file: Option<OwnedFd>,
    /// The patterns of its events.
    pub(crate) globs: Vec<String>,
    /// The description, to which objects are added that are loaded later.
    pub(crate) about: PathBuf,
}

/// Adds what the session's program has loaded to the description at `about`. In vain where the file
/// is gone or the disk full: then addresses in new objects stay numbers.
pub(crate) fn tell_later(session: &Session, about: &Path) {
    let modules = session.news();
    if !modules.is_empty()
        && let Ok(mut file) = OpenOptions::new().append(true).open(about)
    {
        let _ = file.write_all(&About::later(modules));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.end();
        }
    }
}

/// Makes the files and switches the events on. Takes 10 ms, to measure the clock.
pub(crate) fn begin(wanted: &Wanted, mut program: Program, since: Triple) -> Result<Flight, Error> {
    let dir = &wanted.directory;
    let failed = |what: &dyn std::fmt::Display| {
        let text = format!("GRACEPOINT_FLIGHT={}: {what}", dir.display());
        Error::new(ErrorKind::Directory, text)
    };
    let globs = wanted.events.split(',').map(str::trim).filter(|glob| !glob.is_empty());
    let mut create = Create {
        globs: globs.map(str::to_owned).collect(),
        buffer_bytes: parse_size(&wanted.size).ok_or_else(|| {
            let size = &wanted.size;
            failed(&format!("GRACEPOINT_FLIGHT_SIZE={size} is not a size; write 512K, 16M or 1G"))
        })?,
        mode: Mode::Overwrite,
        ..Create::default()
    };
    if create.globs.is_empty() {
        create.globs.push("*".into());
    }
    remove_old(dir);
    let (file, arena, about) = make(dir, program.pid).map_err(|error| failed(&error))?;
    let remove = || {
        let _ = fs::remove_file(&arena);
        let _ = fs::remove_file(&about);
    };
    let begun = (|| {
        std::thread::sleep(BASELINE);
        let made = Session::create(0, &create, wanted.most_bytes, Some(file));
        let (session, file) = made.map_err(|failure| match failure.code.as_str() {
            "no-match" if wanted.events.is_empty() => failed(&"the program has no events"),
            "no-match" => {
                let events = &wanted.events;
                failed(&format!(
                    "GRACEPOINT_FLIGHT_EVENTS={events} matches no event of the program; write patterns \
                     with commas between, such as kv:*,http:*"
                ))
            }
            _ => failed(&failure.text),
        })?;
        let file = file.expect("a new session has its arena's descriptor");
        program.since_ns = since.real_ns;
        program.patching = crate::tracer::patching().into();
        let about_it =
            About { program, arena: *session.ring.arena.header(), created: session.created(since) };
        write_whole(&about, &about_it.to_bytes()).map_err(|error| failed(&error))?;
        session.start().map_err(|failure| failed(&failure.text))?;
        let globs = create.globs.clone();
        Ok(Flight { session: Some(session), file: Some(file), globs, about: about.clone() })
    })();
    begun.inspect_err(|_| remove())
}

/// New files for this pid, of which the arena is open and locked.
fn make(dir: &Path, pid: u32) -> io::Result<(OwnedFd, PathBuf, PathBuf)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    for n in 1..=MOST_NAMESAKES {
        let name = if n == 1 { pid.to_string() } else { format!("{pid}-{n}") };
        let arena = dir.join(format!("{name}{ARENA_SUFFIX}"));
        match options.open(&arena) {
            Ok(file) => {
                sys::lock(file.as_fd());
                return Ok((file.into(), arena, dir.join(format!("{name}{ABOUT_SUFFIX}"))));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("too many flight recorders of pid {pid}; remove some")))
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("part");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&temp)?.write_all(bytes)?;
    fs::rename(&temp, path)
}

/// Makes room: of the recorders whose programs are gone, the newest stay. What cannot be removed, or
/// looked at, stays too.
fn remove_old(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut dead: Vec<(SystemTime, PathBuf)> = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let arena = path.to_str().is_some_and(|path| path.ends_with(ARENA_SUFFIX));
        let open = || OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        if arena
            && let Ok(file) = open()
            && let Ok(changed) = file.metadata().and_then(|meta| meta.modified())
            && is_dead(&file)
        {
            dead.push((changed, path));
        }
    }
    dead.sort();
    for (_, path) in dead.iter().rev().skip(KEPT - 1) {
        let _ = fs::remove_file(path);
        if let Some(name) = path.to_str().and_then(|path| path.strip_suffix(ARENA_SUFFIX)) {
            let _ = fs::remove_file(format!("{name}{ABOUT_SUFFIX}"));
        }
    }
}

/// Does nobody hold the lock?
fn is_dead(file: &File) -> bool {
    sys::lock(file.as_fd())
}

/// `512K`, `16M`, `1G` or a number of bytes; empty for the default, 0.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(0);
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[end..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_shl(shift).filter(|&bytes| bytes > 0)
}

/// A first triple, and what a program says of itself.
pub(crate) fn now() -> Triple {
    clock::triple(clock::source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("", Some(0)), ("4096", Some(4096)), ("16M", Some(16 << 20)), ("2gib", Some(2 << 30))]
        {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        for text in ["x", "M", "-1", "1T", "0"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_newest_of_the_dead_stay() {
        let dir = std::env::temp_dir().join(format!("gp-flights-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let (living, ..) = make(&dir, 1).unwrap();
        for pid in 2..20 {
            let (file, _, about) = make(&dir, pid).unwrap();
            let age = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(pid.into());
            File::from(file).set_modified(age).unwrap();
            write_whole(&about, b"x").unwrap();
        }
        let (again, path, _) = make(&dir, 2).unwrap();
        assert!(path.ends_with("2-2.gp1.flight"), "a namesake's file is left alone");
        remove_old(&dir);
        let mut left: Vec<String> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let kept =
            (13..20).flat_map(|pid| [format!("{pid}.gp1.about"), format!("{pid}.gp1.flight")]);
        let mut wanted: Vec<String> =
            kept.chain(["1.gp1.flight".into(), "2-2.gp1.flight".into()]).collect();
        wanted.sort();
        assert_eq!(left, wanted);
        drop((living, again));
        fs::remove_dir_all(&dir).unwrap();
    }
}
