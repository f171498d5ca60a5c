//! Open spans, and where each is drawn when it ends.
//!
//! A viewer draws the slices of a thread as one inside the other. A span ends up on its thread's track if
//! it ended on the thread where it began; spans that began inside it and are open after it (held across an
//! `.await`, say, or their end is lost) are drawn on tracks of their own. So what is on a thread's track
//! is always well nested, whatever the trace says. Which it is is known at the end of a span, and until
//! then its begin is kept here: memory depends on how many are open at once, of which there is a limit.
//!
//! Begins on a thread are made to differ by at least a nanosecond, since a viewer that sorts by time
//! cannot tell otherwise which is outside.

use std::collections::{HashMap, VecDeque};

/// Spans that are kept open; of more, the oldest one counts as one that never ended.
const MOST_OPEN: usize = 1 << 17;
/// Children on other tracks to which a span points.
const MOST_FLOWS: usize = 32;
/// Payload buffers that are kept for reuse.
const MOST_SPARE: usize = 256;

/// A span that has begun.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) id: u64,
    pub(super) parent: u64,
    /// Position among the threads.
    pub(super) thread: usize,
    /// Position among the trace's events.
    pub(super) kind: u32,
    pub(super) begin_ns: u64,
    /// Of the begin's record.
    pub(super) payload: Vec<u8>,
    /// The span that this is a visit to; 0 where it is a span itself.
    pub(super) of: u64,
    /// It is the whole of a span whose visits are drawn too.
    pub(super) whole: bool,
    /// It is drawn on a track of its own.
    pub(super) apart: bool,
    /// Children on tracks of their own.
    pub(super) flows: Vec<u64>,
    /// Whatever the output gave it at its begin.
    pub(super) node: u32,
    /// Time that its children took.
    pub(super) inside_ns: u64,
}

/// What of a thread's track is drawn.
#[derive(Debug, Default)]
struct Track {
    /// Open spans on it, the innermost last.
    stack: VecDeque<u64>,
    last_begin: u64,
    last: u64,
}

/// All open spans.
#[derive(Debug, Default)]
pub(super) struct Spans {
    open: HashMap<u64, Open>,
    tracks: Vec<Track>,
    /// Ids in the order of their begins; some have ended.
    order: VecDeque<u64>,
    spare: Vec<Vec<u8>>,
}

impl Spans {
    /// Takes a span that begins, its payload being `payload`. Others that it pushes out, which have
    /// no end, are passed to `gone`. Returns when it is drawn to begin.
    pub(super) fn begin(
        &mut self,
        mut span: Open,
        payload: &[u8],
        mut gone: impl FnMut(Open),
    ) -> u64 {
        if let Some(older) = self.take_apart(span.id) {
            gone(older); // two with one id
        }
        if self.open.len() >= MOST_OPEN {
            while let Some(oldest) = self.order.pop_front() {
                if let Some(oldest) = self.take_apart(oldest) {
                    gone(oldest);
                    break;
                }
            }
        }
        if self.order.len() >= 2 * MOST_OPEN {
            let open = &self.open;
            self.order.retain(|id| open.contains_key(id));
        }
        let track = self.track(span.thread);
        span.begin_ns = span.begin_ns.max(track.last_begin.saturating_add(1)).max(track.last);
        (track.last_begin, track.last) = (span.begin_ns, span.begin_ns);
        track.stack.push_back(span.id);
        span.payload = self.spare.pop().unwrap_or_default();
        span.payload.extend_from_slice(payload);
        self.order.push_back(span.id);
        let begin_ns = span.begin_ns;
        self.open.insert(span.id, span);
        begin_ns
    }

    /// The innermost open span on a thread.
    pub(super) fn innermost(&self, thread: usize) -> Option<u64> {
        self.tracks.get(thread)?.stack.back().copied()
    }

    fn track(&mut self, thread: usize) -> &mut Track {
        if self.tracks.len() <= thread {
            self.tracks.resize_with(thread + 1, Track::default);
        }
        &mut self.tracks[thread]
    }

    /// Removes a span wherever it is; it is not drawn on its thread's track.
    fn take_apart(&mut self, id: u64) -> Option<Open> {
        let mut span = self.open.remove(&id)?;
        let stack = &mut self.tracks[span.thread].stack;
        // The oldest or one of the newest, most likely.
        if stack.front() == Some(&id) {
            stack.pop_front();
        } else if let Some(at) = stack.iter().rposition(|&open| open == id) {
            stack.remove(at);
        }
        span.apart = true;
        Some(span)
    }

    /// A span ended on `thread`: what was kept of it and when it ended, if its begin is known.
    pub(super) fn end(&mut self, id: u64, thread: usize, ns: u64) -> Option<(Open, u64)> {
        let (apart, began_on) = self.open.get(&id).map(|span| (span.apart, span.thread))?;
        let span = if apart || began_on != thread {
            self.take_apart(id)?
        } else {
            let track = &mut self.tracks[thread];
            while let Some(inner) = track.stack.pop_back().filter(|&inner| inner != id) {
                if let Some(inner) = self.open.get_mut(&inner) {
                    inner.apart = true;
                }
            }
            track.last = track.last.max(ns);
            self.open.remove(&id)?
        };
        let end_ns = match span.apart {
            true => ns.max(span.begin_ns),
            false => self.tracks[thread].last,
        };
        if let Some(parent) = self.open.get_mut(&span.parent) {
            parent.inside_ns = parent.inside_ns.saturating_add(end_ns - span.begin_ns);
            // A visit has the arrows of its span.
            if span.apart && span.of == 0 && parent.flows.len() < MOST_FLOWS {
                parent.flows.push(span.id);
            }
        }
        Some((span, end_ns))
    }

    /// What the output gave an open span.
    pub(super) fn node(&self, id: u64) -> Option<u32> {
        self.open.get(&id).map(|span| span.node)
    }

    /// Whether a span began before another one, or is not open.
    pub(super) fn is_older(&self, span: u64, than: u64) -> bool {
        let began = |id: u64| self.open.get(&id).map(|span| span.begin_ns);
        began(span).is_none_or(|began_ns| Some(began_ns) <= began(than))
    }

    /// Gives back a span's memory.
    pub(super) fn recycle(&mut self, mut span: Open) {
        if self.spare.len() < MOST_SPARE && span.payload.capacity() <= 4096 {
            span.payload.clear();
            self.spare.push(span.payload);
        }
    }

    /// Those that have not ended, in the order in which they began.
    pub(super) fn rest(&mut self) -> Vec<Open> {
        let mut rest: Vec<Open> = self.open.drain().map(|(_, span)| span).collect();
        rest.sort_by_key(|span| (span.begin_ns, span.id));
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(spans: &mut Spans, id: u64, thread: usize, begin_ns: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        let span = Open { id, thread, begin_ns, ..Open::default() };
        spans.begin(span, b"payload", |span| gone.push(span.id));
        gone
    }

    fn end(spans: &mut Spans, id: u64, thread: usize, ns: u64) -> (bool, u64, u64) {
        let (span, end_ns) = spans.end(id, thread, ns).expect("it is open");
        let ended = (span.apart, span.begin_ns, end_ns);
        spans.recycle(span);
        ended
    }

    #[test]
    fn what_is_not_nested_has_a_track_of_its_own() {
        let mut spans = Spans::default();
        for id in 1..=3 {
            begin(&mut spans, id, 0, 10 * id);
        }
        begin(&mut spans, 4, 1, 40);
        assert_eq!(end(&mut spans, 2, 0, 50), (false, 20, 50), "3 is the one that sticks out");
        assert_eq!(end(&mut spans, 3, 0, 60), (true, 30, 60));
        assert_eq!(end(&mut spans, 4, 0, 70), (true, 40, 70), "it ended on another thread");
        assert_eq!(end(&mut spans, 1, 0, 80), (false, 10, 80));
        assert!(spans.end(1, 0, 90).is_none());
    }

    #[test]
    fn spans_of_one_nanosecond_stay_nested() {
        let mut spans = Spans::default();
        for id in 1..=3 {
            begin(&mut spans, id, 0, 10);
        }
        assert_eq!(end(&mut spans, 3, 0, 10), (false, 12, 12));
        begin(&mut spans, 4, 0, 10);
        assert_eq!(end(&mut spans, 4, 0, 10), (false, 13, 13));
        assert_eq!(end(&mut spans, 2, 0, 10), (false, 11, 13));
        assert_eq!(end(&mut spans, 1, 0, 9), (false, 10, 13));
    }

    #[test]
    fn spans_that_never_end_take_bounded_memory() {
        let mut spans = Spans::default();
        let mut gone = 0;
        for id in 0..MOST_OPEN as u64 * 3 {
            gone += begin(&mut spans, id, (id % 2) as usize, id).len();
        }
        assert_eq!((gone, spans.open.len()), (2 * MOST_OPEN, MOST_OPEN));
        assert!(spans.order.len() <= 2 * MOST_OPEN);
        assert_eq!(spans.tracks.iter().map(|track| track.stack.len()).sum::<usize>(), MOST_OPEN);
        assert_eq!(begin(&mut spans, MOST_OPEN as u64 * 3 - 1, 0, 0).len(), 1, "the same id again");
        assert_eq!(spans.rest().len(), MOST_OPEN);
    }
}
