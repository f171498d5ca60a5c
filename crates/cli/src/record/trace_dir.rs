//! The directory of a trace being recorded: made for its owner alone, readable by tools from the
//! first moment on, described anew when the recording has ended.

use crate::escape::shown;
use crate::failure::{Failure, Result};
use gracepoint_analysis::sidecar::{self, Sidecar};
use gracepoint_wire::SIDECAR;
use gracepoint_wire::clock::Clock;
use gracepoint_wire::control::Program;
use gracepoint_wire::schema::{Context, Declared};
use gracepoint_wire::tsdl::{Metadata, metadata};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How the name of a trace ends that is being removed; it begins with a dot.
pub(crate) const GONE: &str = ".gone";

/// How the name begins under which the metadata is written.
const METADATA_BEGUN: &str = ".metadata.";

/// The directory of a trace.
#[derive(Debug)]
pub(crate) struct TraceDir {
    pub(crate) path: PathBuf,
    /// Device and inode, to notice that it was removed.
    identity: (u64, u64),
}

/// What may become a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    /// A directory that holds nothing.
    Empty,
    /// A directory that holds nothing but a trace, or what a recorder that was killed left of one.
    Trace,
    /// Anything else.
    Other,
}

impl Place {
    fn at(path: &Path) -> io::Result<Place> {
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Place::Free),
            Err(e) => return Err(e),
            Ok(meta) if !meta.is_dir() => return Ok(Place::Other),
            Ok(_) => {}
        }
        let Ok(mut entries) = fs::read_dir(path) else { return Ok(Place::Other) };
        let is_ours = |entry: fs::DirEntry| {
            let is_file = entry.file_type().is_ok_and(|t| t.is_file());
            is_file && is_of_a_trace(&entry.file_name().to_string_lossy())
        };
        let Some(first) = entries.next() else { return Ok(Place::Empty) };
        let all_ours = first.is_ok_and(is_ours) && entries.all(|entry| entry.is_ok_and(is_ours));
        Ok(if all_ours { Place::Trace } else { Place::Other })
    }
}

/// Whether a recorder makes files of this name, finished ones or not.
fn is_of_a_trace(name: &str) -> bool {
    let stream = name.strip_prefix("stream_").is_some_and(|slot| slot.parse::<u32>().is_ok());
    stream || name == "metadata" || name.starts_with(SIDECAR) || name.starts_with(METADATA_BEGUN)
}

/// Fails where `path` cannot become a trace; nothing is changed.
pub(crate) fn check(path: &Path, force: bool) -> Result<()> {
    let named = || shown(&path.to_string_lossy()).into_owned();
    let what = match Place::at(path) {
        Err(e) => format!("cannot record to {}: {e}", named()),
        Ok(Place::Trace) if !force => format!(
            "{} exists: choose another directory with -o, or replace the trace with --force",
            named()
        ),
        Ok(Place::Other) => {
            format!("{} exists and is no trace: choose another directory with -o", named())
        }
        Ok(Place::Free | Place::Empty | Place::Trace) => return Ok(()),
    };
    Err(Failure::new(what))
}

/// Whether a directory holds nothing but a trace, or what a killed recorder left of one: at first, nothing.
pub(crate) fn is_ours(path: &Path) -> bool {
    matches!(Place::at(path), Ok(Place::Trace | Place::Empty))
}

/// Removes a trace. It loses its name at once, so that whoever is killed here leaves no half of a trace
/// that looks like one.
pub(crate) fn remove(path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let gone = path.with_file_name(format!(".{name}{GONE}"));
    let is_named = !name.ends_with(GONE);
    let _ = match is_named && fs::rename(path, &gone).is_ok() {
        true => fs::remove_dir_all(gone),
        false => fs::remove_dir_all(path),
    };
}

impl TraceDir {
    /// Makes the directory, mode 0700; with `force`, in place of the trace that is there.
    pub(crate) fn create(path: &Path, force: bool) -> Result<TraceDir> {
        check(path, force)?;
        let failed = |e: io::Error| {
            let named = path.to_string_lossy();
            let text = format!("cannot make the directory {}: {e}", shown(&named));
            Failure::new(format!("{text}; choose another place with -o"))
        };
        if force && matches!(Place::at(path), Ok(Place::Trace)) {
            fs::remove_dir_all(path).map_err(failed)?;
        }
        DirBuilder::new().mode(0o700).create(path).or_else(|e| {
            // An empty directory will do.
            if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(failed(e)) }
        })?;
        let meta = fs::metadata(path).map_err(failed)?;
        // A change of directory of ours, or a caller's, must not lead elsewhere.
        let path = fs::canonicalize(path).map_err(failed)?;
        Ok(TraceDir { path, identity: (meta.dev(), meta.ino()) })
    }

    /// Removes it: nothing was recorded, or nobody wants it any more.
    pub(crate) fn discard(&self) {
        if is_ours(&self.path) {
            remove(&self.path);
        }
    }

    /// Whether it is still where it was.
    pub(crate) fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity)
    }

    /// Writes metadata and sidecar, each as a whole or not at all.
    pub(crate) fn describe(&self, about: &Description<'_>) -> Result<()> {
        let text = metadata(&Metadata {
            clock: about.clock,
            events: about.events,
            context: about.context,
            env: &env(about.program, about.clock),
        });
        let temp = self.path.join(format!("{METADATA_BEGUN}{}", std::process::id()));
        let target = self.path.join("metadata");
        let result = write_new(&temp, text.as_bytes()).and_then(|()| fs::rename(&temp, &target));
        result.map_err(|e| {
            let _ = fs::remove_file(&temp);
            Failure::new(format!("cannot write {}: {e}", shown(&target.to_string_lossy())))
        })?;
        sidecar::write(&self.path, about.sidecar)?;
        Ok(())
    }
}

/// What metadata and sidecar tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Description<'a> {
    pub(crate) program: &'a Program,
    pub(crate) clock: &'a Clock,
    pub(crate) events: &'a [Declared],
    pub(crate) context: Context,
    pub(crate) sidecar: &'a Sidecar,
}

/// The `env` block of the metadata.
fn env(program: &Program, clock: &Clock) -> Vec<(&'static str, String)> {
    let boot_id: String = clock.boot_id.iter().map(|b| format!("{b:02x}")).collect();
    vec![
        ("tracer_name", "gracepoint".into()),
        ("tracer_version", env!("CARGO_PKG_VERSION").into()),
        ("program", program.name.clone()),
        ("exe", program.exe.clone()),
        ("patching", program.patching.clone()),
        ("vpid", program.pid.to_string()),
        ("boot_id", boot_id),
    ]
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(bytes)
}
