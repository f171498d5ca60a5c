//! Begin and end of spans, paired by the span's id.

use std::collections::HashMap;

/// Pairs begins with ends. `T` is what the caller keeps of a begin until its end.
#[derive(Debug, Default)]
pub struct Pairing<T> {
    open: HashMap<u64, T>,
}

impl<T> Pairing<T> {
    /// A span began; what was kept of an older one with the same id comes back.
    pub fn begin(&mut self, span: u64, kept: T) -> Option<T> {
        self.open.insert(span, kept)
    }

    /// A span ended: what was kept of its begin, if that was seen.
    pub fn end(&mut self, span: u64) -> Option<T> {
        self.open.remove(&span)
    }

    /// Spans that have not ended.
    pub fn open(&self) -> usize {
        self.open.len()
    }
}
