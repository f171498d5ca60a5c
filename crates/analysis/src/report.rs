//! Events as lines of text or JSON.

use crate::{Damage, Result, Trace};
use std::io::Write;

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `12:34:56.123456789 (+0.000001234) thread/tid provider:event: { key = "a" }`.
    #[default]
    Text,
    /// One object per line.
    JsonLines,
}

/// How a text line tells time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Time {
    /// Time of day, UTC.
    #[default]
    Utc,
    /// Date and time of day, UTC.
    UtcDate,
    /// Seconds since the first event that is shown.
    Relative,
}

/// What to report, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// What a line looks like.
    pub format: Format,
    /// How a text line tells time.
    pub time: Time,
    /// Which events; all where empty.
    pub events: Vec<String>,
    /// Stop after so many.
    pub limit: Option<u64>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reported {
    /// Lines written.
    pub lines: u64,
    /// What could not be read. Where `limit` ended the report, only what was met until then.
    pub damage: Vec<Damage>,
}

/// Writes the events of `trace` to `out`, which is buffered here.
///
/// # Errors
/// When a glob matches no event, or `out` fails (see [`crate::Error::is_closed_pipe`]).
pub fn report(trace: &Trace, options: &Options, out: &mut dyn Write) -> Result<Reported> {
    let _ = (trace, options, out);
    unimplemented!()
}
