//! What a trace contains, counted without decoding values.

use crate::{Damage, Result, Trace};
use serde::Serialize;

/// What a trace contains. Counts of events are without `gp:*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Events of the program.
    pub events: u64,
    /// Events lost, by the trace's `gp:loss` records.
    pub lost: u64,
    /// Stream files.
    pub streams: u64,
    /// Packets in them.
    pub packets: u64,
    /// First event, nanoseconds since 1970.
    pub begin_ns: Option<u64>,
    /// Last event, nanoseconds since 1970.
    pub end_ns: Option<u64>,
    /// What ticks mean.
    pub clock: ClockInfo,
    /// The traced program, where the sidecar or the metadata's `env` tells.
    pub program: ProgramInfo,
    /// By event, in order of ids; those that never happened included.
    pub per_event: Vec<EventInfo>,
    /// By thread, most events first.
    pub threads: Vec<ThreadInfo>,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Whether the recorder came to its end; `false` too where the sidecar is missing.
    pub complete: bool,
    /// Why the recording ended; empty where unknown.
    pub ended: String,
    /// Who could still have been writing at the end.
    pub holdouts: Vec<String>,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// Where the trace contradicts itself: totals of the sidecar that differ from what was counted.
    pub contradictions: Vec<String>,
}

/// A trace's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClockInfo {
    /// `tsc` or `monotonic`.
    pub source: String,
    /// Ticks per second.
    pub freq_hz: u64,
}

/// A traced program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ProgramInfo {
    /// Its name.
    pub name: String,
    /// Its pid, as it saw itself; 0 where unknown.
    pub pid: u32,
    /// Path of its executable.
    pub exe: String,
    /// Its arguments, where known.
    pub args: Vec<String>,
}

/// Counts of one kind of event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventInfo {
    /// Its name with the role's suffix.
    pub name: String,
    /// How many are in the trace.
    pub events: u64,
    /// How many were lost.
    pub lost: u64,
}

/// Counts of one thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ThreadInfo {
    /// Thread id, as the traced program saw it.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// How many events it recorded.
    pub events: u64,
}

/// Counts what is in `trace`.
///
/// # Errors
/// None today; damage is part of the result.
pub fn info(trace: &Trace) -> Result<Info> {
    let _ = trace;
    unimplemented!()
}

impl Info {
    /// One JSON object, indented.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// For people; names are escaped.
    pub fn to_text(&self) -> String {
        unimplemented!()
    }
}
