//! Events of all streams in order of time, one at a time.

use crate::trace::EventType;
use crate::{Damage, Value};
use gracepoint_wire::schema::Field;

/// Reads a trace's events in order of time; ties go by stream, then by order in the stream.
#[derive(Debug)]
pub struct Reader<'t> {
    events: &'t [EventType],
}

impl Reader<'_> {
    /// The next event; it borrows from the reader.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        let _ = self.events;
        unimplemented!()
    }

    /// What was found damaged so far.
    pub fn damage(&self) -> &[Damage] {
        unimplemented!()
    }
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// What kind of record it is.
    pub kind: &'a EventType,
    /// Raw time.
    pub ticks: u64,
    /// Nanoseconds since 1970.
    pub ns: u64,
    /// Ring slot.
    pub stream: u64,
    /// Thread id, as the traced program saw it.
    pub tid: u32,
    /// Thread name; may hold any character, so escape it.
    pub thread: &'a str,
    payload: &'a [u8],
}

impl<'a> Event<'a> {
    /// Name with the role's suffix; may hold any character, so escape it.
    pub fn name(&self) -> &'a str {
        &self.kind.name
    }

    /// Fields and values in the order in which they were written.
    pub fn values(&self) -> impl Iterator<Item = (&'a Field, Value<'a>)> + use<'a> {
        let _ = self.payload;
        std::iter::empty()
    }

    /// The value of the field at this position of `kind.fields`.
    pub fn value(&self, index: usize) -> Option<Value<'a>> {
        self.values().nth(index).map(|(_, value)| value)
    }
}
