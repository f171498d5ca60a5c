//! Histogram of a numeric field of one event, or of the length of a span.

use crate::{Damage, Result, Trace};

/// What to draw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Name of the event, `kv:get`; for a span without its suffix, `db:query`.
    pub event: String,
    /// Name of the field; `duration` of a span is its length.
    pub field: String,
    /// Name of a field by whose value to group.
    pub by: Option<String>,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Hist {
    damage: Vec<Damage>,
}

/// Counts the values of a field.
///
/// # Errors
/// When the trace has no such event or field, or the field is not a number.
pub fn hist(trace: &Trace, options: &Options) -> Result<Hist> {
    let _ = (trace, options);
    unimplemented!()
}

impl Hist {
    /// What could not be read.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// One JSON object, indented.
    pub fn to_json(&self) -> String {
        unimplemented!()
    }

    /// Bars and percentiles for people; `width` is the width of the terminal in columns.
    pub fn to_text(&self, width: usize) -> String {
        let _ = width;
        unimplemented!()
    }
}
