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

/// The directory of a trace.
#[derive(Debug)]
pub(crate) struct TraceDir {
    pub(crate) path: PathBuf,
    /// Device and inode, to notice that it was removed.
    identity: (u64, u64),
}

/// Fails where `path` cannot become a trace; nothing is changed.
pub(crate) fn check(path: &Path, force: bool) -> Result<()> {
    let named = || shown(&path.to_string_lossy()).into_owned();
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Failure::new(format!("cannot record to {}: {e}", named()))),
        Ok(_) if is_trace(path) => {
            if force {
                return Ok(());
            }
            Err(Failure::new(format!(
                "{} exists: choose another directory with -o, or replace the trace with --force",
                named()
            )))
        }
        Ok(meta) if meta.is_dir() && fs::read_dir(path).is_ok_and(|mut d| d.next().is_none()) => {
            Ok(())
        }
        Ok(_) => Err(Failure::new(format!(
            "{} exists and is no trace: choose another directory with -o",
            named()
        ))),
    }
}

/// Whether a directory holds nothing but a trace.
fn is_trace(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    let mut described = false;
    for entry in entries {
        let Ok(entry) = entry else { return false };
        let name = entry.file_name();
        described |= name == "metadata";
        let ours = name == "metadata"
            || name.to_string_lossy().starts_with("stream_")
            || name.to_string_lossy().starts_with(SIDECAR)
            || name.to_string_lossy().starts_with(".metadata.");
        if !ours || !entry.file_type().is_ok_and(|t| t.is_file()) {
            return false;
        }
    }
    described
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
    /// Whether a directory holds nothing but a trace.
    pub(crate) fn is_trace(path: &Path) -> bool {
        is_trace(path)
    }

    /// Makes the directory, mode 0700; with `force`, in place of the trace that is there.
    pub(crate) fn create(path: &Path, force: bool) -> Result<TraceDir> {
        check(path, force)?;
        let failed = |e: io::Error| {
            let named = path.to_string_lossy();
            Failure::new(format!("cannot make the directory {}: {e}", shown(&named)))
        };
        if force && is_trace(path) {
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
        if is_trace(&self.path) {
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
        let temp = self.path.join(format!(".metadata.{}", std::process::id()));
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
