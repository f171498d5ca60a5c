//! Begin and end of spans, paired by the span's id.
//!
//! An id is unique in a session, and a span may end in another thread than it began in; so pairing
//! needs events in order of time, as [`crate::read::Reader`] gives them.

use std::collections::HashMap;

/// Spans that may be open at once; a begin beyond that is not remembered, which bounds the memory
/// that a damaged trace can ask for.
pub const MOST_OPEN: usize = 1 << 22;

/// Pairs begins with ends. `T` is what the caller keeps of a begin until its end.
///
/// ```
/// use gracepoint_analysis::spans::Pairing;
/// let mut pairing = Pairing::default();
/// pairing.begin(7, "at 10 ns");
/// assert_eq!(pairing.end(7), Some("at 10 ns"));
/// assert_eq!(pairing.end(7), None); // its begin is not in the trace
/// assert_eq!(pairing.ends_alone(), 1);
/// ```
#[derive(Debug)]
pub struct Pairing<T> {
    open: HashMap<u64, T>,
    ends_alone: u64,
    forgotten: u64,
}

impl<T> Default for Pairing<T> {
    fn default() -> Self {
        Pairing { open: HashMap::new(), ends_alone: 0, forgotten: 0 }
    }
}

impl<T> Pairing<T> {
    /// A span began. What was kept of an older one with the same id, whose end is not in the
    /// trace, comes back.
    pub fn begin(&mut self, span: u64, kept: T) -> Option<T> {
        if self.open.len() >= MOST_OPEN && !self.open.contains_key(&span) {
            self.forgotten += 1;
            return None;
        }
        let older = self.open.insert(span, kept);
        self.forgotten += u64::from(older.is_some());
        older
    }

    /// A span ended: what was kept of its begin, if that was seen.
    pub fn end(&mut self, span: u64) -> Option<T> {
        let begin = self.open.remove(&span);
        self.ends_alone += u64::from(begin.is_none());
        begin
    }

    /// Begins without an end so far.
    pub fn open(&self) -> u64 {
        self.open.len() as u64 + self.forgotten
    }

    /// Ends whose begin was not seen.
    pub fn ends_alone(&self) -> u64 {
        self.ends_alone
    }
}
