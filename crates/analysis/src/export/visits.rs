//! Spans that threads enter and leave, as those of `tracing`: an asynchronous task is polled now here, now
//! there. Each visit is a slice on the thread that made it, nested as the thread's other spans are. The span
//! itself, from its begin to its end, is drawn on a track of its own, unless its one visit on the thread where
//! it began shows all there is.
//!
//! A visit's slice has the span's fields, those recorded by then included. Slices of one span are linked
//! in the order of their times, and to those of a span that it follows.

use std::collections::HashMap;

/// Spans that are kept; one that begins beyond that is drawn by its visits alone.
const MOST: usize = 1 << 17;
/// Records of later values, and spans that one follows, that are kept of a span.
const MOST_OF_EACH: usize = 32;
/// Visits that are open at once.
const MOST_VISITS: usize = 1 << 17;
/// The id of the first visit among the open spans; ids of spans never come near: their high bits are
/// the slot of a thread.
const FIRST_VISIT: u64 = u64::MAX;

/// A span that has begun.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) id: u64,
    /// Where it began.
    pub(super) thread: usize,
    /// Position among the trace's events.
    pub(super) kind: u32,
    pub(super) begin_ns: u64,
    /// Of the begin's record.
    pub(super) payload: Vec<u8>,
    /// Kind and payload of each record with later values.
    pub(super) later: Vec<(u32, Vec<u8>)>,
    /// Spans that it follows, and where their latest slice began.
    pub(super) follows: Vec<(u64, Option<(usize, u64)>)>,
    visits: u64,
    /// Some visit was on another thread than the begin.
    moved: bool,
    /// Thread and begin of the latest visit.
    latest: Option<(usize, u64)>,
}

impl Life {
    pub(super) fn new(id: u64, thread: usize, kind: u32, begin_ns: u64, payload: &[u8]) -> Life {
        Life { id, thread, kind, begin_ns, payload: payload.to_vec(), ..Life::default() }
    }

    /// Whether one visit shows all there is.
    pub(super) fn is_one_visit(&self) -> bool {
        self.visits == 1 && !self.moved
    }
}

/// A visit that begins.
pub(super) struct Visit {
    /// Its id among the open spans.
    pub(super) id: u64,
    /// It is the span's first.
    pub(super) first: bool,
}

/// All spans that are entered and left.
#[derive(Debug)]
pub(super) struct Visits {
    lives: HashMap<u64, Life>,
    /// Visits that are open, by span and thread, the innermost last.
    open: HashMap<(u64, usize), Vec<u64>>,
    open_count: usize,
    next: u64,
    /// Where the latest visits of spans that have ended began: others may follow them.
    ended: HashMap<u64, (usize, u64)>,
}

impl Default for Visits {
    fn default() -> Visits {
        Visits {
            lives: HashMap::new(),
            open: HashMap::new(),
            open_count: 0,
            next: FIRST_VISIT,
            ended: HashMap::new(),
        }
    }
}

impl Visits {
    /// A span begins. One that has the same id and no end comes back; so does this one where there are
    /// too many.
    pub(super) fn begin(&mut self, life: Life) -> Option<Life> {
        if self.lives.len() >= MOST && !self.lives.contains_key(&life.id) {
            return Some(life);
        }
        self.lives.insert(life.id, life)
    }

    pub(super) fn get(&self, span: u64) -> Option<&Life> {
        self.lives.get(&span)
    }

    /// A thread enters a span.
    pub(super) fn enter(&mut self, span: u64, thread: usize, ns: u64) -> Option<Visit> {
        if self.open_count >= MOST_VISITS {
            return None;
        }
        let id = self.next;
        self.next -= 1;
        self.open_count += 1;
        self.open.entry((span, thread)).or_default().push(id);
        let mut first = false;
        if let Some(life) = self.lives.get_mut(&span) {
            first = life.visits == 0;
            life.visits += 1;
            life.moved |= life.thread != thread;
            life.latest = Some((thread, ns));
        }
        Some(Visit { id, first })
    }

    /// It leaves: which visit that was.
    pub(super) fn exit(&mut self, span: u64, thread: usize) -> Option<u64> {
        let open = self.open.get_mut(&(span, thread))?;
        let visit = open.pop();
        if open.is_empty() {
            self.open.remove(&(span, thread));
        }
        self.open_count -= usize::from(visit.is_some());
        visit
    }

    /// Later values of a span. False if its begin is not known, or there are too many.
    pub(super) fn record(&mut self, span: u64, kind: u32, payload: &[u8]) -> bool {
        let life = self.lives.get_mut(&span).filter(|life| life.later.len() < MOST_OF_EACH);
        life.map(|life| life.later.push((kind, payload.to_vec()))).is_some()
    }

    /// A span follows another.
    pub(super) fn follow(&mut self, span: u64, other: u64) {
        let from = match self.lives.get(&other) {
            Some(life) => life.latest,
            None => self.ended.get(&other).copied(),
        };
        if let Some(life) = self.lives.get_mut(&span).filter(|l| l.follows.len() < MOST_OF_EACH) {
            life.follows.push((other, from));
        }
    }

    /// A span ends.
    pub(super) fn end(&mut self, span: u64) -> Option<Life> {
        let life = self.lives.remove(&span)?;
        if self.ended.len() >= MOST {
            self.ended.clear();
        }
        self.ended.extend(life.latest.map(|latest| (span, latest)));
        Some(life)
    }

    /// Those that have not ended, in the order in which they began.
    pub(super) fn rest(&mut self) -> Vec<Life> {
        let mut rest: Vec<Life> = self.lives.drain().map(|(_, life)| life).collect();
        rest.sort_by_key(|life| (life.begin_ns, life.id));
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(id: u64, thread: usize) -> Life {
        Life { id, thread, ..Life::default() }
    }

    #[test]
    fn visits_are_paired_by_span_and_thread() {
        let mut visits = Visits::default();
        assert!(visits.begin(life(1, 0)).is_none());
        let outer = visits.enter(1, 0, 10).unwrap();
        let again = visits.enter(1, 0, 11).unwrap();
        let other = visits.enter(1, 1, 12).unwrap();
        assert!(outer.first && !again.first && !other.first);
        assert_eq!(visits.exit(1, 0), Some(again.id));
        assert_eq!(visits.exit(1, 1), Some(other.id));
        assert_eq!(visits.exit(1, 0), Some(outer.id));
        assert_eq!((visits.exit(1, 0), visits.open.len(), visits.open_count), (None, 0, 0));
        assert!(!visits.end(1).unwrap().is_one_visit());
        visits.begin(life(2, 3));
        visits.enter(2, 3, 0);
        assert!(visits.get(2).unwrap().is_one_visit());
    }

    #[test]
    fn what_never_ends_takes_bounded_memory() {
        let mut visits = Visits::default();
        for id in 0..2 * MOST as u64 {
            visits.begin(life(id, 0));
            visits.enter(id, 0, id);
            for _ in 0..2 {
                visits.record(0, 1, b"x");
                visits.follow(0, id);
            }
        }
        assert_eq!((visits.lives.len(), visits.open_count), (MOST, MOST_VISITS));
        let first = &visits.lives[&0];
        assert_eq!((first.later.len(), first.follows.len()), (MOST_OF_EACH, MOST_OF_EACH));
        assert_eq!(visits.rest().len(), MOST);
    }
}
