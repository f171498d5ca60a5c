//! Events as lines of text or JSON.
//!
//! [`report`] does the whole; [`Lines`] spells one event, for those who read events themselves.

pub(crate) mod spell;

pub use spell::Lines;

use crate::filter::Filter;
use crate::{Damage, Error, Result, Trace};
use std::io::Write;

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `12:34:56.123456789 (+0.000001234) thread/tid provider:event: { key = "a" }`.
    #[default]
    Text,
    /// One object per line: `ts_ns`, `name`, `tid`, `thread`, and `fields` in order.
    ///
    /// Integers are exact whatever their size. Floats that are not finite are strings; text that
    /// is not UTF-8 is `{"lossy":…,"hex":…}`; a sequence that was cut is `{"total":…,"kept":[…]}`;
    /// an option is null or the value; an enumeration is a name or, where the value has none, a
    /// number; a duration is its nanoseconds; a function, and an event of which `gp:loss` and its like tell, is its name. Where
    /// events have stacks (`callstack`), `frames` tells their functions, as far as they are known.
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
    /// Which events.
    pub filter: Filter,
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

/// Bytes to gather before they are written.
const GATHER: usize = 64 << 10;

/// Writes the events of `trace` to `out`, which is buffered here.
///
/// ```
/// use gracepoint_analysis::report::{Options, report};
/// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
/// use gracepoint_analysis::filter::Filter;
/// let filter = Filter { events: vec!["kv:*".into()], ..Filter::default() };
/// let options = Options { filter, ..Options::default() };
/// let mut text = Vec::new();
/// let reported = report(&trace, &options, &mut text)?;
/// assert_eq!((reported.lines, reported.damage.len()), (60, 0));
/// assert!(text.starts_with(b"03:04:05.000000000 (+?.?????????) t0/100 kv:get: { key = "));
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
///
/// # Errors
/// When a glob matches no event, or `out` fails (see [`crate::Error::is_closed_pipe`]).
pub fn report(trace: &Trace, options: &Options, out: &mut dyn Write) -> Result<Reported> {
    let mut reader = trace.reader_of(&trace.choose(&options.filter)?);
    let mut lines = Lines::new(trace, options.format, options.time).with_symbols(trace);
    let mut text = Vec::with_capacity(2 * GATHER);
    let mut count = 0;
    while options.limit.is_none_or(|limit| count < limit) {
        let Some(event) = reader.next_event() else { break };
        lines.push(&event, &mut text);
        count += 1;
        if text.len() >= GATHER {
            out.write_all(&text).map_err(|e| Error::output(&e))?;
            text.clear();
        }
    }
    out.write_all(&text).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
    Ok(Reported { lines: count, damage: reader.into_damage() })
}
