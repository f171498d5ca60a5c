//! Opens a trace: what is in the directory, what its events are, what its clock means.

use crate::sidecar::Sidecar;
use crate::{Damage, Result};
use gracepoint_wire::clock::Clock;
use gracepoint_wire::schema::{Declared, Field};
use std::path::{Path, PathBuf};

/// One kind of record of a trace.
#[derive(Debug, Clone)]
pub struct EventType {
    /// Id, role and schema; the schema's name has no role suffix.
    pub declared: Declared,
    /// The name in the trace, with the role's suffix: `db:query:begin`.
    pub name: String,
    /// The fields as they are written, those that the role adds included.
    pub fields: Vec<Field>,
}

impl EventType {
    /// Whether it is one of Gracepoint's own (`gp:*`) and no event of the program.
    pub fn is_own(&self) -> bool {
        self.name.starts_with("gp:")
    }
}

/// An opened trace. Nothing of its streams is in memory.
#[derive(Debug)]
pub struct Trace {
    dir: PathBuf,
    events: Vec<EventType>,
    clock: Clock,
    sidecar: Option<Sidecar>,
    streams: Vec<PathBuf>,
}

impl Trace {
    /// Opens the trace in `dir`.
    ///
    /// # Errors
    /// When `dir` is no trace, is of another tracer, or was made by a newer version. A missing or
    /// damaged sidecar is no error.
    pub fn open(dir: impl AsRef<Path>) -> Result<Trace> {
        let _ = dir;
        unimplemented!()
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it can contain.
    pub fn events(&self) -> &[EventType] {
        &self.events
    }

    /// What ticks mean: the sidecar's clock where its triples span at least 10 ms, else that of the
    /// metadata.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The sidecar, where there is a good one.
    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.sidecar.as_ref()
    }

    /// Number of stream files.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// What was wrong with the directory, metadata and sidecar.
    pub fn damage(&self) -> &[Damage] {
        unimplemented!()
    }

    /// Events whose full name, or name without a role's suffix, matches one of `globs`; every
    /// event where there are no globs.
    ///
    /// # Errors
    /// When a glob matches no event of the trace; the message suggests names.
    pub fn select(&self, globs: &[String]) -> Result<Selection> {
        let _ = globs;
        unimplemented!()
    }

    /// All events in order of time.
    pub fn reader(&self) -> crate::read::Reader<'_> {
        unimplemented!()
    }

    /// The selected events in order of time.
    pub fn reader_of(&self, selection: &Selection) -> crate::read::Reader<'_> {
        let _ = selection;
        unimplemented!()
    }
}

/// Which of a trace's events are wanted: one flag per entry of [`Trace::events`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(pub Vec<bool>);
